"""A run's folder: opened before anything expensive, and never left without a result.json."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.config import ConfigError, TrainConfig, to_json
from trainer.exit_codes import ExitCode, RunError, exit_code_of

NEEDED_BYTES = 100 * 2**20
"""Free disk space below which a run is not started: figures, logs and an export take a tenth of it."""


class DiskError(RunError):
    """Too little disk space to begin."""

    exit_code = ExitCode.IO


@contextmanager
def open_run_folder(config: TrainConfig) -> Iterator[Path]:
    """Make the run's folder and save the config in it.

    Raises:
        ConfigError: it cannot be written, or the run has been finished already.
        DiskError: too little disk space is left.
    """
    folder = config.run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finished = _result(folder).get("exit_code") == ExitCode.OK
        if not finished:
            write_atomically(folder / "config.json", lambda path: path.write_text(to_json(config)))
    except OSError as error:
        raise ConfigError(f"--artifacts {config.artifacts}: cannot write to {folder}: {error.strerror}") from error
    if finished:
        raise ConfigError(f"run {config.run!r} is finished ({folder / 'result.json'}); give this one another --run")
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise DiskError(
            f"{folder}: only {free / 2**20:.0f} MiB of disk space left; a run needs {NEEDED_BYTES >> 20} MiB"
        )
    yield folder


@contextmanager
def recorded(folder: Path, command: str, started: datetime) -> Iterator[dict[str, Any]]:
    """A dict for what the body finds out; written to result.json with the exit status, however the body ends."""
    result: dict[str, Any] = {"command": command, "started": started.isoformat(timespec="seconds")}
    code, message = ExitCode.OK, "done"
    try:
        yield result
    except BaseException as error:
        code, message = (
            exit_code_of(error),
            f"{error}" if isinstance(error, RunError) else f"{type(error).__name__}: {error}",
        )
        raise
    finally:
        outcome = {"exit_code": int(code), "status": code.name.lower(), "message": message}
        finished = {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps({**outcome, **result, **finished}, indent=2) + "\n"
        try:
            write_atomically(folder / "result.json", lambda path: path.write_text(text))
        except OSError:
            # On a full disk the failure that brought us here says more than this one would.
            if code is ExitCode.OK:
                raise


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` write a file whole or not at all: under another name, flushed to disk, then renamed to `path`."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.is_file() else {}
