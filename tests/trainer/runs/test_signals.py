"""Signals: heard between two calls, and a second one at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.trainer.conftest import REPOSITORY
from trainer.errors import ExitCode, exit_code_of
from trainer.runs.signals import StoppedError, deferred_stop, stoppable

# Minutes of C without a look at Python's signal handlers, as a call of TensorFlow is.
STUCK = """
import hashlib
from trainer.runs.signals import deferred_stop
with deferred_stop() as stop_requested:
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_a_first_signal_is_a_question_and_an_error_only_at_the_end() -> None:
    heard = []
    with pytest.raises(StoppedError) as raised, deferred_stop() as stop_requested:  # noqa: PT012
        heard.append(stop_requested())
        os.kill(os.getpid(), signal.SIGTERM)
        heard.append(stop_requested())
    assert heard == [False, True]
    assert exit_code_of(raised.value) == ExitCode.STOPPED


def test_a_second_signal_ends_the_process_even_in_the_midst_of_a_call() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "one signal lets the call come to its end"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == ExitCode.STOPPED


def test_no_handler_of_failures_takes_a_signal_for_one() -> None:
    # The gate did: scoring the served version was stopped, and the run ended with "retire it", for good.
    def score() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except Exception:
            pytest.fail("taken for a failure")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stoppable():
        score()


def test_the_handlers_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    with deferred_stop():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)) == before
