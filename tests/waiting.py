"""Waiting for a condition, so that no test sleeps for a fixed time."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_seconds: float = 60, pause_seconds: float = 0.02) -> None:
    """Return as soon as `condition()` is true; fail the test after `timeout_seconds`."""
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end, f"the condition is still false after {timeout_seconds} s"
        time.sleep(pause_seconds)
