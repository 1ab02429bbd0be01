"""SIGTERM, SIGINT and SIGHUP: they raise an error at once; during training they set a flag that the loop polls."""

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
    """Inside, each of `SIGNALS` raises StoppedError, so that every `finally` and `with` on the way out cleans up."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise StoppedError(f"stopped by {signal.Signals(number).name}")

    with _handled(stop):
        yield


@contextmanager
def deferred_stop() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal makes the yielded function return True; the second one ends the process at once."""
    requested = False

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal requested
        requested = True

    with _handled(on_signal), _ended_by_a_second_signal():
        yield lambda: requested
    if requested:
        raise StoppedError("stopped by a signal after the training")


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
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
