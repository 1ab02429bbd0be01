"""A run's folder: opened before anything expensive, and never left without a record of how the run ended."""

import dataclasses
import errno
import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.contract import MODEL_NAME
from trainer.config import ConfigError, TrainConfig, refuse_mismatch, resolve, to_json, what_it_computes
from trainer.errors import BusyError, ExitCode, RunError, exit_code_of
from trainer.runs.atomic import PARTIAL_PREFIX, write_atomically
from trainer.runs.signals import StoppedError

NEEDED_BYTES = 100 * 2**20
"""Free disk space below which a run is not started: figures, logs and an export take a tenth of it."""

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""Errors that come of the path that was given, and stay however often one tries."""

LOCK_FILE = ".lock"

RESULT_FILE = "result.json"
"""How `train` ended; `evaluate` and `publish` leave records of their own beside it."""

TRIAL_FILE = "trial.json"
"""How a run ended that is a trial of `tune`."""


class DiskError(RunError):
    """Too little disk space to begin."""

    exit_code = ExitCode.IO


@contextmanager
def open_run_folder(config: TrainConfig, now: datetime) -> Iterator[TrainConfig]:
    """Make the run's folder and save the config in it; yields the config with the name of the run filled in.

    A run that has checkpoints goes on from them; what an attempt without any left there is removed.

    Raises:
        ConfigError: the folder cannot be written, or what it holds is of another config or of something else.
        BusyError: another process is at work in it.
        OSError: the disk is full, or fails.
    """
    with ExitStack() as held:
        try:
            config = config if config.run else _with_new_name(config, now)
            config.run_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(config.run_dir))
            _prepare(config.run_dir, config)
            if config.publish:
                # Found out now, and not when half an hour of training is to be published.
                model_dir = config.models_dir / MODEL_NAME
                model_dir.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=model_dir).close()
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            raise ConfigError(
                f"--artifacts {config.artifacts}: cannot write to {error.filename or config.run_dir}: {error.strerror}"
            ) from error
        yield config


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
        message = f"{error}" if isinstance(error, RunError | StoppedError) else f"{type(error).__name__}: {error}"
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


def read_record(path: Path) -> dict[str, Any]:
    """What `recorded` wrote to `path`, or nothing."""
    return json.loads(path.read_text()) if path.is_file() else {}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{folder}: another process is at work on this run; wait for it, or stop it") from error
        yield


def _prepare(folder: Path, config: TrainConfig) -> None:
    from trainer.runs.checkpoint import FOLDER, checkpoint_files  # numpy: not for `--help`

    saved, old = folder / "config.json", [child for child in folder.iterdir() if child.name != LOCK_FILE]
    if not saved.is_file() and any(not child.name.startswith(PARTIAL_PREFIX) for child in old):
        raise ConfigError(f"{folder}: holds files that are not of a run; give this one another --run")
    if checkpoint_files(folder / FOLDER):
        refuse_mismatch(what_it_computes(resolve(file=saved)), what_it_computes(config), f"run {config.run!r}")
        old = [folder / RESULT_FILE, *folder.rglob(f"{PARTIAL_PREFIX}*")]
    elif any(read_record(folder / name).get("exit_code") == ExitCode.OK for name in (RESULT_FILE, "publish.json")):
        raise ConfigError(f"run {config.run!r} is finished ({folder / RESULT_FILE}); give this one another --run")
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_atomically(saved, lambda path: path.write_text(to_json(config)))


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
