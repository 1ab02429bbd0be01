"""Checkpoints: numbered by step, checksummed, written atomically, the last few kept.

    runs/<run>/checkpoints/step-00004200-<SHA-256 of the content>.npz

A checkpoint is an ordinary .npz file of arrays, one of which holds JSON, so `numpy.load` opens it anywhere. Its name holds
its checksum. A file whose content does not match is renamed to `.damaged`, and the checkpoint before it is used.
"""

import contextlib
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.runs.atomic import write_atomically
from trainer.runs.console import print_to_stderr

FOLDER = "checkpoints"
"""Name of the checkpoints' folder inside a run's folder."""

FACTS = "facts.json"
"""Name of the array that holds the JSON."""

DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after one step."""

    step: int
    """Steps that have run."""
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    """Everything that is not an array, ready for JSON."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings and the digests of the data that it was computed with."""
        return self.facts["identity"]


class Checkpoints:
    """The checkpoints of one run, written in a thread while training continues."""

    def __init__(
        self,
        run_dir: Path,
        identity: dict[str, Any],
        *,
        every_seconds: float,
        every_steps: int,
        keep: int,
        before_write: Callable[[], None] = lambda: None,
    ):
        """Read and write `run_dir`/checkpoints; the folder is made by the first write.

        Args:
            run_dir: the run's folder.
            identity: the settings and the data that the run computes with, JSON-ready; saved in each checkpoint.
            every_seconds: how long after the last checkpoint the next is due; 0 = never.
            every_steps: how many steps after the last checkpoint the next is due; 0 = never.
            keep: how many to keep.
            before_write: called in the writing thread before each write, to flush files that must cover the same steps.
        """
        self.folder = run_dir / FOLDER
        self.identity = identity
        self._every_seconds, self._every_steps, self._keep = every_seconds, every_steps, keep
        self._before_write = before_write
        self._last_step, self._last_time = 0, time.monotonic()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def identity_digest(self) -> str:
        """SHA-256 of `identity`, which must be the same on all workers and when a run is resumed."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def newest(self) -> str:
        """Return the name of the newest intact checkpoint, empty if there is none; report and rename damaged ones."""
        found = newest_checkpoint(self.folder)
        return found[0].name if found else ""

    def read(self, name: str) -> Checkpoint:
        """Return the checkpoint of that name. Its `identity` may be another run's: the caller compares it.

        Raises:
            OSError: it is missing, or cannot be read.
        """
        checkpoint = read_checkpoint(self.folder / name)
        self._last_step = checkpoint.step
        return checkpoint

    def due(self, step: int) -> bool:
        """Return whether the next checkpoint is due after `step`."""
        by_time = self._every_seconds and time.monotonic() - self._last_time >= self._every_seconds
        by_steps = self._every_steps and step - self._last_step >= self._every_steps
        return bool(by_time or by_steps)

    def save(self, checkpoint: Checkpoint) -> None:
        """Start to write `checkpoint`, whose arrays must not change afterwards; wait for the previous write.

        A failed write is reported on standard error and does not stop training: the next write may succeed.
        """
        try:
            self.finish()
        except OSError as error:
            print_to_stderr(f"warning: {error}; training continues")
        self._last_step, self._last_time = checkpoint.step, time.monotonic()
        named = replace(checkpoint, facts={**checkpoint.facts, "identity": self.identity})
        self._thread = threading.Thread(target=self._write, args=(named,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait until the last saved checkpoint is on the disk.

        Raises:
            OSError: it could not be written; the earlier checkpoints are intact.
        """
        self.wait()
        self._thread, error, self._error = None, self._error, None
        if isinstance(error, OSError):
            raise OSError(f"{self.folder}: the checkpoint was not written: {error}") from error
        if error:
            raise error

    def wait(self) -> None:
        """Wait until no write is pending, without raising its error."""
        if self._thread:
            self._thread.join()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._before_write()
            write_checkpoint(self.folder, checkpoint)
            for old in checkpoint_files(self.folder)[: -self._keep]:
                with contextlib.suppress(OSError):  # An extra file does no harm, and the next save retries.
                    old.unlink()
        except Exception as error:
            self._error = error  # `finish` raises it in the training thread.


def is_trained(run_dir: Path) -> bool:
    """Return whether the newest checkpoint of a run is the one at its end; False if that file is damaged."""
    files = checkpoint_files(run_dir / FOLDER)
    try:
        return bool(files) and read_checkpoint(files[-1]).facts.get("is_trained", False)
    except (OSError, ValueError):
        return False


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint; return its file.

    Raises:
        OSError: nothing was written.
    """
    content = io.BytesIO()
    facts = np.frombuffer(json.dumps(checkpoint.facts).encode(), np.uint8)
    np.savez(content, allow_pickle=False, **checkpoint.arrays, **{FACTS: facts})
    data = content.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:08}-{hashlib.sha256(data).hexdigest()}.npz"
    write_atomically(path, lambda partial: partial.write_bytes(data))
    return path


def newest_checkpoint(folder: Path) -> tuple[Path, Checkpoint] | None:
    """Return the newest checkpoint that matches its checksum, and its file; damaged files are reported and renamed."""
    for path in reversed(checkpoint_files(folder)):
        try:
            return path, read_checkpoint(path)
        except (OSError, ValueError) as error:
            print_to_stderr(f"warning: {error}; using the checkpoint before it")
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + DAMAGED_SUFFIX))
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        OSError: it cannot be read.
        ValueError: its content does not match the checksum in its name.
    """
    content = path.read_bytes()
    _, step, checksum = path.stem.split("-")
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(
            f"checkpoint {path} is damaged: its {len(content):,} bytes do not match the checksum in its name"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        facts = json.loads(arrays[FACTS].tobytes())
        return Checkpoint(int(step), {name: arrays[name] for name in arrays.files if name != FACTS}, facts)


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint file."""
    return int(path.stem.split("-")[1])


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    files = [path for path in folder.glob("step-*.npz") if re.fullmatch(r"step-\d{8,}-[0-9a-f]{64}", path.stem)]
    return sorted(files, key=lambda path: (step_of(path), _time_of(path)))


def _time_of(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # The process that is training the run has just removed it.
        return 0
