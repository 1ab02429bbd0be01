"""The folder that TensorFlow Serving polls: the versions in it, and the renames that promote and retire them.

The server loads every child whose name is a number and ignores all others. A version is therefore written under another
name and promoted by one rename, so the server never sees an incomplete one. A rename retires it too. Numbers are never
used twice: a server that failed to load a number does not retry it.
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
    """The versions in the models folder do not allow this operation."""

    exit_code = ExitCode.USAGE


def live_versions(model_dir: Path) -> list[int]:
    """The versions that TensorFlow Serving sees, oldest first."""
    if not model_dir.is_dir():
        return []
    return sorted(number for child in model_dir.iterdir() if (number := _version_of(child.name)) is not None)


def next_version(model_dir: Path, now: datetime) -> int:
    """The UTC time as YYYYMMDDhhmmss, or one more than the highest number used so far, whichever is higher."""
    names = [child.name for child in model_dir.iterdir()] if model_dir.is_dir() else []
    numbers = (_version_of(name.removeprefix(STAGING_PREFIX).removesuffix(RETIRED_SUFFIX)) for name in names)
    highest = max((number for number in numbers if number is not None), default=0)
    return max(int(now.astimezone(UTC).strftime("%Y%m%d%H%M%S")), highest + 1)


@contextmanager
def publisher_lock(model_dir: Path, timeout_seconds: float = 900.0) -> Iterator[None]:
    """Hold the lock that allows one publisher at a time, and remove what killed publishers left behind.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        BusyError: another publisher held the lock until the timeout.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    with (model_dir / LOCK_FILE).open("w") as lock:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"{model_dir}: another publisher has held the lock for {timeout_seconds:g} s; try again later"
                    ) from error
                time.sleep(0.1)
        for leftover in model_dir.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def staging_folder(model_dir: Path, version: int) -> Path:
    """Where to write a version before it is promoted: on the same filesystem, under a name that is not a number."""
    return model_dir / f"{STAGING_PREFIX}{version}"


def promote(staging: Path, version: int) -> Path:
    """Make a complete version visible to the server by one atomic rename, and flush that rename to the disk.

    Raises:
        VersionError: the number is taken; the existing version is unchanged.
    """
    target = staging.parent / str(version)
    try:
        # A rename replaces an empty folder silently but refuses one with files, and a version always has files.
        staging.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise VersionError(f"{target} exists already; versions are never overwritten") from error
        raise
    sync_folder(staging.parent)
    return target


def roll_back(model_dir: Path, *, allow_none: bool = False) -> tuple[int, int | None]:
    """Retire the newest version: the server then serves the one before it, without a gap.

    Returns:
        The retired version, and the version served now (None if none is left).

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
                "Publish another first, or add --allow-none"
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
    """The folder of a live version; its name may have leading zeros."""
    return next(child for child in model_dir.iterdir() if _version_of(child.name) == version)


def _version_of(name: str) -> int | None:
    # TensorFlow Serving accepts decimal digits that fit into a signed 64-bit integer and ignores all other names.
    number = int(name) if re.fullmatch(r"[0-9]+", name) else -1
    return number if 0 <= number < 2**63 else None
