"""SIGTERM and SIGINT: an error at once, or, while training, a question that the loop asks between two calls."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.errors import ExitCode

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(KeyboardInterrupt):
    """The process was asked to stop. Not an Exception, so that no `except Exception` on the way takes it for a failure."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While inside, SIGTERM and SIGINT raise StoppedError, so that everything on the way out cleans up after itself."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise StoppedError(f"stopped by {signal.Signals(number).name}. Start it again")

    with _handled(stop):
        yield


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """While inside, a first signal only makes the yielded function return True; a second one ends the process at once."""
    requested = False

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal requested
        requested = True

    with _handled(on_signal), _ended_by_a_second_signal():
        yield lambda: requested
    if requested:
        raise StoppedError("stopped by a signal after the training. Start the run again, and it goes on from there")


@contextmanager
def _ended_by_a_second_signal() -> Iterator[None]:
    # Python's handlers wait until the main thread comes back from TensorFlow; this pipe hears a signal when it comes.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def count() -> None:
        heard = 0
        while number := os.read(reader, 1):
            heard += number[0] in SIGNALS
            if heard == 2:
                os._exit(ExitCode.STOPPED)
        os.close(reader)

    threading.Thread(target=count, name="second signal", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
