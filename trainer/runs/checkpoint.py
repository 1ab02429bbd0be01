"""Checkpoints: numbered by step, checksummed, written whole or not at all, the last few kept.

    runs/<run>/checkpoints/step-00004200-<SHA-256 of the content>.npz

A checkpoint is an ordinary .npz file of arrays, one of which holds JSON, so `numpy.load` opens it anywhere. The checksum
is part of the name: what a name promises is there, or the file is set aside and the one before it is used.
"""

import contextlib
import hashlib
import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.runs.atomic import write_atomically

FOLDER = "checkpoints"
"""Where a run keeps them, in its own folder."""

FACTS = "facts.json"
"""Name of the array that holds the JSON."""

DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a run."""

    step: int
    """Steps that have run."""
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    """Whatever else is needed, JSON-ready."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings and the data that it was computed with."""
        return self.facts["identity"]


class Checkpoints:
    """The checkpoints of one run; they are written in a thread, so that training goes on meanwhile."""

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
        """Use `run_dir`/checkpoints.

        Args:
            run_dir: the run's folder.
            identity: the settings and the data that the run computes with, JSON-ready; saved in each checkpoint.
            every_seconds: how long after the last checkpoint the next is due; 0 = never.
            every_steps: how many steps after the last checkpoint the next is due; 0 = never.
            keep: how many to keep.
            before_write: run in the writing thread before each, to flush what must not be behind a checkpoint.
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
        """SHA-256 of what must be the same for all workers, and for a run to go on."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def newest(self) -> str:
        """Name of the newest sound checkpoint, empty if there is none; damaged ones are reported and set aside."""
        found = newest_checkpoint(self.folder)
        return found[0].name if found else ""

    def read(self, name: str) -> Checkpoint:
        """The checkpoint of that name. Its `identity` may be another run's: the caller compares it.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        checkpoint = read_checkpoint(self.folder / name)
        self._last_step = checkpoint.step
        return checkpoint

    def due(self, step: int) -> bool:
        """Whether it is time for the next."""
        by_time = self._every_seconds and time.monotonic() - self._last_time >= self._every_seconds
        by_steps = self._every_steps and step - self._last_step >= self._every_steps
        return bool(by_time or by_steps)

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write `checkpoint`, whose arrays must not change any more; waits for the one before, if need be.

        One that cannot be written is reported on standard error and costs nothing but itself: the training is worth
        more, and the next may succeed.
        """
        try:
            self.finish()
        except OSError as error:
            print(f"warning: {error}; training goes on", file=sys.stderr, flush=True)
        self._last_step, self._last_time = checkpoint.step, time.monotonic()
        named = replace(checkpoint, facts={**checkpoint.facts, "identity": self.identity})
        self._thread = threading.Thread(target=self._write, args=(named,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was given to `save` is on the disk.

        Raises:
            OSError: it could not be written; the checkpoints before it are still there.
        """
        self.wait()
        self._thread, error, self._error = None, self._error, None
        if isinstance(error, OSError):
            raise OSError(f"{self.folder}: the checkpoint was not written: {error}") from error
        if error:
            raise error

    def wait(self) -> None:
        """Wait until no checkpoint is being written, whatever came of it."""
        if self._thread:
            self._thread.join()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._before_write()
            write_checkpoint(self.folder, checkpoint)
            for old in checkpoint_files(self.folder)[: -self._keep]:
                with contextlib.suppress(OSError):  # one too many does no harm, and the next save tries again
                    old.unlink()
        except Exception as error:
            self._error = error  # for `finish`, in the thread that trains


def is_trained(run_dir: Path) -> bool:
    """Whether the newest checkpoint of a run is the one at its end; nothing is set aside if it is damaged."""
    files = checkpoint_files(run_dir / FOLDER)
    try:
        return bool(files) and read_checkpoint(files[-1]).facts.get("is_trained", False)
    except (OSError, ValueError):
        return False


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint; returns its file.

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
    """The newest checkpoint whose content is what its checksum says, and its file; damaged ones are set aside."""
    for path in reversed(checkpoint_files(folder)):
        try:
            return path, read_checkpoint(path)
        except (OSError, ValueError) as error:
            print(f"warning: {error}; taking the one before it", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + DAMAGED_SUFFIX))
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        OSError: it cannot be read.
        ValueError: its content is not what its name promises.
    """
    content = path.read_bytes()
    _, step, checksum = path.stem.split("-")
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(
            f"checkpoint {path} is damaged: its {len(content):,} bytes do not have the checksum of its name"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        facts = json.loads(arrays[FACTS].tobytes())
        return Checkpoint(int(step), {name: arrays[name] for name in arrays.files if name != FACTS}, facts)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint file."""
    return int(path.stem.split("-")[1])


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    files = [path for path in folder.glob("step-*.npz") if re.fullmatch(r"step-\d{8,}-[0-9a-f]{64}", path.stem)]
    return sorted(files, key=lambda path: (step_of(path), path.stat().st_mtime_ns))
