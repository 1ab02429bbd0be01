"""SIGTERM and SIGINT: an error at once, or, while training, a question that the loop asks between two calls."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.exit_codes import ExitCode, RunError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(RunError):
    """The process was asked to stop."""

    exit_code = ExitCode.STOPPED


@contextmanager
def stoppable() -> Iterator[None]:
    """While inside, SIGTERM and SIGINT raise StoppedError, so that everything on the way out cleans up after itself."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise StoppedError(f"stopped by {signal.Signals(number).name}; nothing is published. Start it again")

    with _handled(stop):
        yield


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """While inside, a first signal only makes the yielded function return True; a second one ends the process at once."""
    requested = False

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal requested
        if requested:
            os._exit(ExitCode.STOPPED)
        requested = True

    with _handled(on_signal):
        yield lambda: requested
    if requested:
        raise StoppedError("stopped by a signal; nothing is published. Start the run again, and it goes on from there")


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
