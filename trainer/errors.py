"""What each exit status of `python -m trainer` means, and the exception that carries it.

A Kubernetes Job decides from these numbers whether a retry can help, so they are part of the interface.
"""

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
    PEERS = 69
    """Another worker did not come, or was lost; the state is saved. Run all of them again."""
    BUG = 70
    """An error that nobody foresaw; the traceback is printed."""
    IO = 74
    """The operating system refused a read or a write (disk full, quota, permission, fault). A retry may help."""
    STOPPED = 75
    """Stopped by a signal before it was done. Run it again: training goes on where it was."""


class RunError(Exception):
    """An error with a known cause: its message says what was given, what was expected and how to fix it."""

    exit_code = ExitCode.BUG


class ConfigError(RunError):
    """A setting, a flag or a path that cannot work."""

    exit_code = ExitCode.USAGE


class BusyError(RunError):
    """Another process is at work there."""

    exit_code = ExitCode.IO


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit status that an error ends the process with."""
    if isinstance(error, RunError):
        return error.exit_code
    if isinstance(error, OSError):
        return ExitCode.IO
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    return ExitCode.BUG
