"""A run's folder: opened before anything expensive, and never left without a record of how the run ended."""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.contract import MODEL_NAME
from trainer.config import ConfigError, TrainConfig, to_json
from trainer.exit_codes import ExitCode, RunError, exit_code_of

NEEDED_BYTES = 100 * 2**20
"""Free disk space below which a run is not started: figures, logs and an export take a tenth of it."""

RESULT_FILE = "result.json"
"""How `train` ended; `evaluate` and `publish` leave records of their own beside it."""


class DiskError(RunError):
    """Too little disk space to begin."""

    exit_code = ExitCode.IO


def open_run_folder(config: TrainConfig, now: datetime) -> TrainConfig:
    """Make the run's folder and save the config in it; what an unfinished attempt left there is removed first.

    Returns:
        The config with the name of the run filled in.

    Raises:
        ConfigError: it cannot be written, or the run has been finished already.
    """
    try:
        config = config if config.run else _with_new_name(config, now)
        folder = config.run_dir
        folder.mkdir(parents=True, exist_ok=True)
        if any(read_record(folder / name).get("exit_code") == ExitCode.OK for name in (RESULT_FILE, "publish.json")):
            raise ConfigError(f"run {config.run!r} is finished ({folder / RESULT_FILE}); give this one another --run")
        if any(folder.iterdir()) and not (folder / "config.json").is_file():
            raise ConfigError(f"{folder}: holds files that are not of a run; give this one another --run")
        for old in folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        write_atomically(folder / "config.json", lambda path: path.write_text(to_json(config)))
        if config.publish:
            # Found out now, and not when half an hour of training is to be published.
            model_dir = config.models_dir / MODEL_NAME
            model_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(model_dir / ".writable", lambda path: path.write_text(""))
            (model_dir / ".writable").unlink()
    except OSError as error:
        raise ConfigError(
            f"--artifacts {config.artifacts}: cannot write to {error.filename}: {error.strerror}"
        ) from error
    return config


def refuse_full_disk(folder: Path) -> None:
    """Refuse to begin with less than `NEEDED_BYTES` of free space.

    Raises:
        DiskError: saying how much there is.
    """
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise DiskError(
            f"{folder}: only {free / 2**20:.0f} MiB of disk space left; a run needs {NEEDED_BYTES >> 20} MiB"
        )


@contextmanager
def recorded(path: Path, started: datetime) -> Iterator[dict[str, Any]]:
    """A dict for what the body finds out; written to `path` as JSON with the exit status, however the body ends."""
    record: dict[str, Any] = {"started": started.isoformat(timespec="seconds")}
    code, message = ExitCode.OK, "done"
    try:
        yield record
    except BaseException as error:
        code = exit_code_of(error)
        message = f"{error}" if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        outcome = {"exit_code": int(code), "status": code.name.lower(), "message": message}
        finished = {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps({**outcome, **record, **finished}, indent=2) + "\n"
        try:
            write_atomically(path, lambda partial: partial.write_text(text))
        except OSError as error:
            # What the body did, or why it failed, counts for more than this: a full disk is often behind both.
            print(f"warning: cannot write {path}: {error}", file=sys.stderr)


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


def read_record(path: Path) -> dict[str, Any]:
    """What `recorded` wrote to `path`, or nothing."""
    return json.loads(path.read_text()) if path.is_file() else {}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _with_new_name(config: TrainConfig, now: datetime) -> TrainConfig:
    base = f"{config.preset}-{now.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        named = dataclasses.replace(config, run=base if number == 1 else f"{base}-{number}")
        try:
            named.run_dir.mkdir(parents=True)
        except FileExistsError:
            if not named.run_dir.is_dir():
                raise
            continue  # another run of the same second
        return named
    raise ConfigError(f"{config.artifacts}: a thousand runs are called {base}; give this one a --run of its own")
