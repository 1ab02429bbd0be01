"""Locks between processes: an exclusive flock on a file. The operating system releases it when its process ends."""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import BusyError, ConfigError
from trainer.runs.console import print_to_stderr

POLL_SECONDS = 0.1

ANNOUNCED_AFTER_SECONDS = 1.0
"""A wait that takes longer is reported on standard error."""

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a filesystem without locks, for instance NFS without a lock service."""


@contextmanager
def locked(path: Path, *, timeout_seconds: float = 0.0, busy: str) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made if need be.

    Args:
        path: the lock file.
        timeout_seconds: how long to wait while another process holds it.
        busy: the message of the BusyError: who holds the lock and what to do.

    Raises:
        BusyError: another process held the lock until the timeout.
        ConfigError: the filesystem has no locks.
    """
    started, is_announced = time.monotonic(), False
    with path.open("w") as file:
        while not _try_lock(path, file.fileno()):
            waited = time.monotonic() - started
            if waited >= timeout_seconds:
                raise BusyError(busy)
            if waited >= ANNOUNCED_AFTER_SECONDS and not is_announced:
                is_announced = True
                print_to_stderr(f"waiting for another process to release {path}")
            time.sleep(POLL_SECONDS)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of the file `path`. On a filesystem without locks: no."""
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    return False


def _try_lock(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise ConfigError(
            f"{path}: this filesystem has no locks ({error.strerror}), so two processes could overwrite each other's "
            "files; mount it with locks, or choose another folder"
        ) from error
    return True
