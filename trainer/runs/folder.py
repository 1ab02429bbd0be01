"""A run's folder: named, locked, checked and made ready before anything expensive starts."""

import dataclasses
import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from trainer.command_line import command_line
from trainer.config import (
    TrainConfig,
    differences,
    is_saved_config,
    refuse_mismatch,
    resolve,
    to_json,
    what_it_computes,
)
from trainer.errors import ConfigError, ExitCode, RunError
from trainer.precision import fixed_precision
from trainer.runs.atomic import PARTIAL_PREFIX, write_atomically
from trainer.runs.lock import is_locked, locked
from trainer.runs.result import PUBLISH_FILE, RESULT_FILE, is_ended_trial, read_result
from trainer.runs.signals import StoppedError

NEEDED_BYTES = 100 * 2**20
"""Free disk space that a run needs at its start; figures, logs and an export take about a tenth of it."""

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""Errors that the given path causes: a retry cannot help."""

LOCK_FILE = ".lock"

LOCK_SECONDS = 0.3
"""How long to wait for a run's lock: `trainer.runs.listing` holds it for an instant."""

CONFIG_FILE = "config.json"
"""The settings, complete."""

PREDICTIONS_FILE = "predictions.npz"
"""Labels and predicted probabilities of the test split: `Evaluation.save`."""

WEIGHTS_FILE = "model.weights.h5"
"""The weights of a run that was trained to its end, as Keras writes them."""


class DiskError(RunError):
    """Too little disk space to start."""

    exit_code = ExitCode.IO


@contextmanager
def open_run_folder(config: TrainConfig, now: datetime, lock_seconds: float = LOCK_SECONDS) -> Iterator[TrainConfig]:
    """Make the run's folder and save the config in it; yield the config with the run's name and precision filled in.

    A run that has checkpoints is resumed from them, and one that `is_finished` is left as it is. Otherwise the files of an
    earlier attempt are removed.

    Args:
        config: where the run writes.
        now: the time that names a run without a name.
        lock_seconds: how long to wait for another process that is training the run.

    Raises:
        ConfigError: the folder cannot be written, or it holds a run with other settings, or other files.
        BusyError: another process is training in it.
        OSError: the disk is full, or fails.
    """
    with ExitStack() as held:
        try:
            config = config if config.run else _with_new_name(config, now)
            config.run_dir.mkdir(parents=True, exist_ok=True)
            busy = f"{config.run_dir}: another process is training this run; wait for it, or stop it"
            held.enter_context(locked(config.run_dir / LOCK_FILE, timeout_seconds=lock_seconds, busy=busy))
            config = _prepare(config.run_dir, config)
            if config.publish:
                # Checked now: after half an hour of training it would be too late.
                config.model_dir.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=config.model_dir).close()
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            raise ConfigError(
                f"--artifacts {config.artifacts}: cannot write to {error.filename or config.run_dir}: {error.strerror}"
            ) from error
        yield config


def is_finished(config: TrainConfig) -> bool:
    """Return whether the run has been trained and, unless the config says not to publish, published."""
    results = [read_result(config.run_dir / name) for name in (RESULT_FILE, PUBLISH_FILE)]
    succeeded = [result for result in results if result and result.exit_code == ExitCode.OK]
    return any(result.published or not config.publish for result in succeeded)


def find_unfinished(config: TrainConfig) -> Path | None:
    """Return the folder of the newest run of the same settings that can be resumed, if there is one."""
    from trainer.runs.checkpoint import FOLDER, checkpoint_files  # numpy: not for `--help`

    configs = sorted(
        (config.artifacts / "runs").glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for folder in (path.parent for path in configs):
        try:
            result = read_result(folder / RESULT_FILE)
            is_resumable = result.exit_code == ExitCode.STOPPED if result else not is_ended_trial(folder)
            if not is_resumable or not checkpoint_files(folder / FOLDER) or is_locked(folder / LOCK_FILE):
                continue
            saved = resolve(file=folder / CONFIG_FILE)
        except (ConfigError, OSError, TypeError, ValueError):
            continue  # A damaged folder, or one of another version of this program.
        if not differences(what_it_computes(saved), what_it_computes(config)):
            return folder
    return None


def resume_command(run_dir: Path) -> str:
    """Return the command that resumes a run, to be copied from the terminal."""
    return command_line("train", "--config", run_dir / "config.json", "--run", run_dir.name)


@contextmanager
def explains_resume(run_dir: Path) -> Iterator[None]:
    """Add the command that resumes the run to a StoppedError of the body."""
    try:
        yield
    except StoppedError as stopped:
        raise StoppedError(f"{stopped}\nresume it with: {resume_command(run_dir)}") from stopped


def refuse_full_disk(folder: Path) -> None:
    """Refuse to start with less than `NEEDED_BYTES` of free space.

    Raises:
        DiskError: naming the free space.
    """
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise DiskError(
            f"{folder}: only {free / 2**20:.0f} MiB of disk space left; a run needs {NEEDED_BYTES >> 20} MiB"
        )


def _prepare(folder: Path, config: TrainConfig) -> TrainConfig:
    from trainer.runs.checkpoint import FOLDER, checkpoint_files  # numpy: not for `--help`

    saved, old = folder / CONFIG_FILE, [child for child in folder.iterdir() if child.name != LOCK_FILE]
    checkpoints = checkpoint_files(folder / FOLDER)
    # Other programs have a config.json too, and the files of an earlier attempt are removed below.
    is_run = saved.is_file() and (checkpoints or is_saved_config(saved))
    if not is_run and any(not child.name.startswith(PARTIAL_PREFIX) for child in old):
        raise ConfigError(f"{folder}: holds files that do not belong to a run; give this one another --run")
    finished = is_finished(config)
    if checkpoints or finished:
        earlier = resolve(file=saved)
        refuse_mismatch(what_it_computes(earlier), what_it_computes(config), f"run {config.run!r}")
        config = dataclasses.replace(config, precision=earlier.precision)
    else:
        config = dataclasses.replace(config, precision=fixed_precision(config.precision))
    if finished:
        return config
    if checkpoints:
        old = [folder / RESULT_FILE, *folder.rglob(f"{PARTIAL_PREFIX}*")]
    elif (result := read_result(folder / RESULT_FILE)) and result.exit_code == ExitCode.OK:
        raise ConfigError(
            f"run {config.run!r} is trained, but not published: publish it with `{command_line('publish', folder)}`, or "
            "give this one another --run"
        )
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_atomically(saved, lambda path: path.write_text(to_json(config)))
    return config


def _with_new_name(config: TrainConfig, now: datetime) -> TrainConfig:
    base = f"{config.preset}-{now.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        named = dataclasses.replace(config, run=base if number == 1 else f"{base}-{number}")
        try:
            named.run_dir.mkdir(parents=True)
        except FileExistsError:
            if not named.run_dir.is_dir():
                raise
            continue  # Another run started in the same second.
        return named
    raise ConfigError(f"{config.artifacts}: a thousand runs are named {base}; choose a --run name")
