"""The exit statuses of `python -m trainer`, and the exceptions that carry them.

A Kubernetes Job decides from these numbers whether to retry, so they are part of the interface.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit statuses; 69, 70, 74 and 75 are those of BSD's sysexits.h."""

    OK = 0
    """Done; for `train` and `publish`: a version was published (or publishing was switched off)."""
    USAGE = 2
    """A flag, a config or a path is wrong; nothing was started. A retry cannot help."""
    DATA = 3
    """Data is missing or damaged; nothing was trained. A retry cannot help."""
    DIVERGED = 4
    """The loss became NaN or infinite; nothing was published. A retry cannot help."""
    GATE = 5
    """The model is not good enough to be published. A retry cannot help."""
    ARTIFACT = 6
    """The exported files failed their check and were not published. A retry cannot help."""
    MEMORY = 7
    """Out of memory. A retry on the same machine cannot help: use a smaller batch or network, or more memory."""
    PEERS = 69
    """Another worker is missing or was lost; the state is saved. Start all workers again."""
    BUG = 70
    """An unexpected error; the traceback is printed."""
    IO = 74
    """A read or a write failed (full disk, quota, permission, I/O error), or a download did. A retry may help."""
    STOPPED = 75
    """Stopped by a signal, with the state saved. The same command resumes it."""


class RunError(Exception):
    """An error with a known cause. Its message says what was given, what was expected and how to fix it."""

    exit_code = ExitCode.BUG


class ConfigError(RunError):
    """A setting, a flag or a path that cannot work."""

    exit_code = ExitCode.USAGE


class OutOfMemoryError(RunError):
    """The machine or the device has less memory than the settings need."""

    exit_code = ExitCode.MEMORY


class PrunedError(RunError):
    """A search stopped a trial early because it was clearly worse than others. It is a result and not a failure."""

    exit_code = ExitCode.OK


class BusyError(RunError):
    """Another process holds the lock."""

    exit_code = ExitCode.IO


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """While inside, a failed allocation, by Python or by TensorFlow, becomes an OutOfMemoryError that says what helps."""
    try:
        yield
    except Exception as error:
        # By name, since importing TensorFlow's class takes seconds.
        if not isinstance(error, MemoryError) and type(error).__name__ != "ResourceExhaustedError":
            raise
        # Without the name of the op, which TensorFlow puts around the reason.
        reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", (str(error) or type(error).__name__).splitlines()[0])
        raise OutOfMemoryError(
            f"out of memory: {reason}. Lower --global-batch-size or --width, or use a machine or a device with more "
            "memory"
        ) from error


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit status that an error ends the process with."""
    if isinstance(error, RunError):
        return error.exit_code
    if isinstance(error, MemoryError):
        return ExitCode.MEMORY
    if isinstance(error, OSError):
        return ExitCode.IO
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    return ExitCode.BUG
