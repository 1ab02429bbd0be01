"""Signals: the first one sets a flag during training, the second one ends the process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.trainer.conftest import REPOSITORY
from trainer.errors import ExitCode, exit_code_of
from trainer.runs.signals import SIGNALS, StoppedError, deferred_stop, stoppable

# Minutes in C code, in which Python runs no signal handler: like a call of TensorFlow.
STUCK = """
import hashlib
from trainer.runs.signals import deferred_stop
with deferred_stop() as stop_requested:
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.fixture(autouse=True)
def _not_under_nohup() -> Iterator[None]:
    """The tests may run under nohup, which ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_sets_the_flag_and_raises_at_the_end(number: int) -> None:
    heard = []
    with pytest.raises(StoppedError) as raised, deferred_stop() as stop_requested:  # noqa: PT012
        heard.append(stop_requested())
        os.kill(os.getpid(), number)
        heard.append(stop_requested())
    assert heard == [False, True]
    assert exit_code_of(raised.value) == ExitCode.STOPPED


def test_the_second_signal_ends_the_process_even_inside_a_call() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "one signal lets the call finish"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == ExitCode.STOPPED


def test_except_exception_does_not_catch_a_signal() -> None:
    # The gate once did: it reported a stopped scoring of the served version as a failed one.
    def score() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except Exception:
            pytest.fail("handled as a failure")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stoppable():
        score()


def test_the_earlier_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    with deferred_stop():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)) == before


def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stoppable(), deferred_stop() as stop_requested:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop_requested()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_is_not_lost_in_code_that_catches_everything() -> None:
    def call_keras() -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stoppable(), deferred_stop():
        call_keras()


def test_a_thread_may_use_code_that_defers_signals() -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(lambda: deferred_stop().__enter__()()).result() is False
