"""The folder that TensorFlow Serving polls: the versions in it, and the renames that promote and retire them.

The server loads every child whose name is a number and ignores all others. A version is therefore written under another
name and promoted by one rename, so the server never sees an incomplete one. A rename retires it too. Numbers are never
used twice: a server that failed to load a number does not retry it.
"""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from trainer.errors import ExitCode, RunError
from trainer.runs.atomic import sync_folder
from trainer.runs.lock import locked

STAGING_PREFIX = ".staging-"
RETIRED_SUFFIX = ".retired"
REMOVED_PREFIX = ".removed-"
LOCK_FILE = ".lock"

HIGHEST_VERSION = 2**63 - 1
"""TensorFlow Serving keeps version numbers as signed 64-bit integers."""

LEAST_KEPT_VERSIONS = 2
"""The newest version, and the one before it, which a server serves until it has loaded the newest."""


class VersionError(RunError):
    """The versions in the models folder do not allow this operation."""

    exit_code = ExitCode.USAGE


def live_versions(model_dir: Path) -> list[int]:
    """Return the versions that TensorFlow Serving sees, oldest first."""
    if not model_dir.is_dir():
        return []
    return sorted(number for child in model_dir.iterdir() if (number := _version_of(child.name)) is not None)


def next_version(model_dir: Path, now: datetime) -> int:
    """Return the UTC time as YYYYMMDDhhmmss, or one more than the highest number used so far, whichever is higher.

    Raises:
        VersionError: the highest number used is the highest possible one.
    """
    names = [child.name for child in model_dir.iterdir()] if model_dir.is_dir() else []
    numbers = (_version_of(name.removeprefix(STAGING_PREFIX).removesuffix(RETIRED_SUFFIX)) for name in names)
    highest = max((number for number in numbers if number is not None), default=0)
    if highest == HIGHEST_VERSION:
        raise VersionError(f"{model_dir}: {highest} is the highest possible version, so no next one exists; rename it")
    return max(int(now.astimezone(UTC).strftime("%Y%m%d%H%M%S")), highest + 1)


@contextmanager
def publisher_lock(model_dir: Path, timeout_seconds: float = 900.0) -> Iterator[None]:
    """Hold the lock that allows one publisher at a time, and remove the leftover files of publishers that were killed.

    Raises:
        BusyError: another publisher held the lock until the timeout.
        ConfigError: the filesystem has no locks.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    busy = f"{model_dir}: another publisher has held the lock for {timeout_seconds:g} s; try again later"
    with locked(model_dir / LOCK_FILE, timeout_seconds=timeout_seconds, busy=busy):
        for prefix in (STAGING_PREFIX, REMOVED_PREFIX):
            for leftover in model_dir.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def staging_folder(model_dir: Path, version: int) -> Path:
    """Return where to write a version before it is promoted: on the same filesystem, under a name that is not a number."""
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


def roll_back(
    model_dir: Path, version: int | None = None, *, allow_none: bool = False, timeout_seconds: float = 900.0
) -> tuple[int, int | None]:
    """Retire a version by renaming it: the server then serves the newest one that is left, without a gap.

    Args:
        model_dir: the folder of the versions.
        version: the version to retire; None means the newest when this is called. A version that another publisher adds
            while this waits for the lock is never the one retired.
        allow_none: whether the only version may be retired, so that nothing is served.
        timeout_seconds: how long to wait for another publisher.

    Returns:
        The retired version, and the one served now (None if none is left).

    Raises:
        VersionError: there is no such version, the newest one changed during the wait, or it is the only one.
    """
    before = live_versions(model_dir)
    if not before:
        raise VersionError(f"{model_dir}: no version to roll back from")
    chosen = before[-1] if version is None else version
    _refuse_unknown(model_dir, chosen, before)
    with publisher_lock(model_dir, timeout_seconds):
        live = live_versions(model_dir)
        if version is None and live[-1:] != [chosen]:
            raise VersionError(
                f"{model_dir}: version {chosen} was the newest and is not any more; nothing was retired. "
                f"The versions are {', '.join(map(str, live)) or 'none'}: name the one to retire"
            )
        _refuse_unknown(model_dir, chosen, live)
        left = [number for number in live if number != chosen]
        if not left and not allow_none:
            raise VersionError(
                f"{model_dir}: {chosen} is the only version; without it nothing is served. "
                "Publish another first, or add --allow-none"
            )
        folder = version_folder(model_dir, chosen)
        retired = folder.with_name(folder.name + RETIRED_SUFFIX)
        if retired.exists():  # The version was retired before, and a copy was put back.
            raise VersionError(f"{retired} exists already; remove or rename it, then retire version {chosen}")
        folder.rename(retired)
        sync_folder(model_dir)
    return chosen, left[-1] if left else None


def remove_old_versions(model_dir: Path, keep: int) -> list[int]:
    """Remove all live versions but the newest `keep`; return the removed ones. The caller holds the lock.

    Each is renamed first, so the server sees a version vanish as a whole. Retired versions stay.

    Raises:
        OSError: a version cannot be removed.
    """
    assert keep >= LEAST_KEPT_VERSIONS, "the server may still be serving the version before the newest"
    old = live_versions(model_dir)[:-keep]
    for version in old:
        folder = version_folder(model_dir, version)
        removed = folder.rename(folder.with_name(f"{REMOVED_PREFIX}{folder.name}"))
        sync_folder(model_dir)
        shutil.rmtree(removed)
    return old


def unreadable_parents(version: Path) -> list[Path]:
    """Return the folders above a version that keep other users from reading it.

    The user's home and the folders above it are left out: they are often closed, and a server for others is elsewhere.
    """
    polled, *above = version.absolute().parents
    needed = {polled: 0o005} | dict.fromkeys(above, 0o001)  # list the first, enter the others
    with suppress(RuntimeError):  # A user without an entry in passwd, as in many containers, has no home.
        home = Path.home().absolute()
        needed = {folder: bits for folder, bits in needed.items() if folder not in (home, *home.parents)}
    return [folder for folder, bits in needed.items() if folder.stat().st_mode & bits != bits]


def version_folders(model_dir: Path) -> list[Path]:
    """Return the folders of all versions, live and retired, newest first."""
    numbered = {
        child: number
        for child in model_dir.iterdir()
        if (number := _version_of(child.name.removesuffix(RETIRED_SUFFIX))) is not None
    }
    return sorted(numbered, key=numbered.__getitem__, reverse=True)


def version_folder(model_dir: Path, version: int) -> Path:
    """Return the folder of a live version; its name may have leading zeros."""
    return next(child for child in model_dir.iterdir() if _version_of(child.name) == version)


def _refuse_unknown(model_dir: Path, version: int, live: list[int]) -> None:
    if version not in live:
        raise VersionError(
            f"{model_dir}: there is no live version {version}; the versions are {', '.join(map(str, live)) or 'none'}"
        )


def _version_of(name: str) -> int | None:
    # TensorFlow Serving accepts decimal digits that fit into a signed 64-bit integer and ignores all other names.
    number = int(name) if re.fullmatch(r"[0-9]+", name) else -1
    return number if 0 <= number <= HIGHEST_VERSION else None
