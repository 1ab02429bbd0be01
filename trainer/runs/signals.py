"""SIGTERM, SIGINT and SIGHUP: they raise an error at once, or, around calls of TensorFlow and Keras, when those are done.

A SIGHUP that is ignored, as under nohup, stays ignored.

TensorFlow and Keras call Python from C++, and some of Keras's functions catch every exception. An error that is raised
inside them can be lost, and the process then publishes although it was told to stop; or the process crashes.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.errors import ExitCode

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(KeyboardInterrupt):
    """A signal stopped the process. It is no Exception, so that no `except Exception` handles it as a failure."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Make each of `SIGNALS` raise StoppedError in the block, so that `finally` and `with` on the way out clean up."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise _stopped_by(number)

    with _handled(stop):
        yield


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """Make the yielded function return True after the first signal; the second one ends the process at once.

    Raises:
        StoppedError: after the body, if there was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python runs handlers in the main thread alone.
        return
    received = 0

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal received
        received = number

    with _handled(on_signal), _ended_by_a_second_signal():
        yield lambda: bool(received)
    if received:
        raise _stopped_by(received)


def _stopped_by(number: int) -> StoppedError:
    return StoppedError(f"stopped by {signal.Signals(number).name}")


@contextmanager
def _ended_by_a_second_signal() -> Iterator[None]:
    # Python runs a handler only when the main thread returns from TensorFlow. This pipe receives each signal at once.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def count() -> None:
        received = 0
        while number := os.read(reader, 1):
            received += number[0] in SIGNALS
            if received == 2:
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
    # nohup ignores SIGHUP, so that the process outlives its terminal.
    numbers = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
