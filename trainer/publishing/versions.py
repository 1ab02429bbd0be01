"""The folder that TensorFlow Serving polls: which versions it holds, and the moves that can never show it a partial one.

A child whose name is a number is a version; any other name is invisible to the server. So a version is written under
another name and appears by one rename, and it is retired by a rename too. Numbers are never used twice: a server that
once failed to load a number gives it up for ever.
"""

import errno
import fcntl
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from trainer.errors import BusyError, ExitCode, RunError
from trainer.runs.atomic import sync_folder

STAGING_PREFIX = ".staging-"
RETIRED_SUFFIX = ".retired"
LOCK_FILE = ".lock"


class VersionError(RunError):
    """A move that the state of the models folder does not allow."""

    exit_code = ExitCode.USAGE


def live_versions(model_dir: Path) -> list[int]:
    """The versions that TensorFlow Serving sees, oldest first."""
    if not model_dir.is_dir():
        return []
    return sorted(number for child in model_dir.iterdir() if (number := _version_of(child.name)) is not None)


def next_version(model_dir: Path, now: datetime) -> int:
    """A number that was never used: the UTC time as YYYYMMDDhhmmss, or one more than the highest there ever was."""
    names = [child.name for child in model_dir.iterdir()] if model_dir.is_dir() else []
    numbers = (_version_of(name.removeprefix(STAGING_PREFIX).removesuffix(RETIRED_SUFFIX)) for name in names)
    highest = max((number for number in numbers if number is not None), default=0)
    return max(int(now.astimezone(UTC).strftime("%Y%m%d%H%M%S")), highest + 1)


@contextmanager
def publisher_lock(model_dir: Path, timeout_seconds: float = 900.0) -> Iterator[None]:
    """Be the only publisher; the lock dies with its process. What dead publishers left behind is removed.

    Raises:
        BusyError: another publisher held the lock all the while.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    with (model_dir / LOCK_FILE).open("w") as lock:
        give_up = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > give_up:
                    raise BusyError(
                        f"{model_dir}: another publisher has held the lock for {timeout_seconds:g} s; try again later"
                    ) from error
                time.sleep(0.1)
        for leftover in model_dir.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def staging_folder(model_dir: Path, version: int) -> Path:
    """Where to write a version before it may be seen: on the same filesystem, under a name that is no number."""
    return model_dir / f"{STAGING_PREFIX}{version}"


def reveal(staging: Path, version: int) -> Path:
    """Make a finished version visible in one atomic step, and make that step durable.

    Raises:
        VersionError: the number is taken; what is there stays as it is.
    """
    target = staging.parent / str(version)
    try:
        # rename replaces an empty folder silently, but a version is never empty, and then it refuses.
        staging.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise VersionError(f"{target} exists already; versions are never overwritten") from error
        raise
    sync_folder(staging.parent)
    return target


def roll_back(model_dir: Path, *, allow_none: bool = False) -> tuple[int, int | None]:
    """Retire the newest version, so that the server falls back to the one before without a gap.

    Returns:
        The retired version, and the one that is served now (None if none is left).

    Raises:
        VersionError: there is no version, or only one and `allow_none` is false.
    """
    if not live_versions(model_dir):
        raise VersionError(f"{model_dir}: no version to roll back from")
    with publisher_lock(model_dir):
        versions = live_versions(model_dir)
        if len(versions) == 1 and not allow_none:
            raise VersionError(
                f"{model_dir}: {versions[0]} is the only version; without it nothing is served. "
                "Publish another first, or say --allow-none"
            )
        newest = version_folder(model_dir, versions[-1])
        newest.rename(newest.with_name(newest.name + RETIRED_SUFFIX))
        sync_folder(model_dir)
    return versions[-1], versions[-2] if len(versions) > 1 else None


def version_folders(model_dir: Path) -> list[Path]:
    """The folders of all versions, live and retired, newest first."""
    numbered = {
        child: number
        for child in model_dir.iterdir()
        if (number := _version_of(child.name.removesuffix(RETIRED_SUFFIX))) is not None
    }
    return sorted(numbered, key=numbered.__getitem__, reverse=True)


def version_folder(model_dir: Path, version: int) -> Path:
    """The folder of a live version, whatever leading zeros its name has."""
    return next(child for child in model_dir.iterdir() if _version_of(child.name) == version)


def _version_of(name: str) -> int | None:
    # As TensorFlow Serving reads a name: decimal digits that fit into 64 bits with sign; all else it passes over.
    number = int(name) if re.fullmatch(r"[0-9]+", name) else -1
    return number if 0 <= number < 2**63 else None
