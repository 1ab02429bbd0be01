"""SIGTERM and SIGINT as a question that the training loop asks between two calls."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.exit_codes import ExitCode, RunError


class StoppedError(RunError):
    """The process was asked to stop."""

    exit_code = ExitCode.STOPPED


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, a first SIGTERM or SIGINT only makes the function return True; a second one ends the process."""
    requested = False

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal requested
        if requested:
            os._exit(ExitCode.STOPPED)
        requested = True

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
