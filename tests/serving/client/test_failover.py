"""Several replicas behind one target: one is killed or frozen under load, no request fails, and it is used again."""

import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.client import DigitClient
from testbed.replicas import Replica
from tests.waiting import wait_until

IMAGE = np.zeros((1, 28, 28), np.uint8)
CALLERS = 16


class _Load:
    """Threads that send requests until stopped; counts responses by version and keeps the failures."""

    def __init__(self, client):
        self._client, self._stop, self._pool = client, threading.Event(), ThreadPoolExecutor(CALLERS)
        self.responses, self.failures, self.slowest_seconds = Counter(), [], 0.0
        self._callers = [self._pool.submit(self._send) for _ in range(CALLERS)]

    def _send(self):
        while not self._stop.wait(0.02):
            begin = time.monotonic()
            try:
                self.responses[int(self._client.predict(IMAGE).version[0])] += 1
            except Exception as error:  # the test expects none, of any kind
                self.failures.append(error)
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begin)

    def versions_of(self, requests):
        """Return the versions of the next responses, at least so many."""
        before = self.responses.copy()
        wait_until(lambda: (self.responses - before).total() >= requests)
        return set(self.responses - before)

    def stop(self):
        self._stop.set()
        self._pool.shutdown()


@pytest.fixture
def replicas():
    with contextlib.ExitStack() as stack:
        started = []
        for version in (1, 2, 3):
            started.append(replica := Replica(version))
            stack.callback(replica.kill)
            stack.callback(replica.resume)
        yield started


@pytest.fixture
def load(replicas):
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    with DigitClient(target, timeout_seconds=4) as client:
        load = _Load(client)
        wait_until(lambda: set(load.responses) == {1, 2, 3})
        yield load
        load.stop()


def test_a_killed_replica_fails_no_request_and_is_used_again_after_its_restart(replicas, load):
    replicas[2].kill()
    wait_until(lambda: load.versions_of(200) == {1, 2})
    replicas[2].start()
    wait_until(lambda: 3 in load.versions_of(50))
    assert not load.failures


def _wait_until_left_out(load):
    wait_until(lambda: load.slowest_seconds > 1.9)  # requests to the frozen replica: half of their deadline

    def slowest_of_500_requests():
        load.slowest_seconds = 0.0
        load.versions_of(500)
        return load.slowest_seconds

    wait_until(lambda: slowest_of_500_requests() < 1.9)


def test_a_frozen_replica_fails_no_request_and_is_left_out(replicas, load):
    replicas[2].freeze()
    _wait_until_left_out(load)
    assert load.versions_of(500) == {1, 2}
    assert not load.failures


def test_a_moment_in_which_all_replicas_fail_does_not_leave_all_of_them_out(replicas, load):
    replicas[2].kill()
    for replica in replicas[:2]:
        replica.freeze()
    wait_until(lambda: load.failures)
    for replica in replicas[:2]:
        replica.resume()
    resumed = time.monotonic()
    load.versions_of(200)
    assert time.monotonic() - resumed < 5


@pytest.mark.slow
def test_a_replica_that_was_frozen_is_used_again(replicas, load):
    replicas[2].freeze()
    _wait_until_left_out(load)
    replicas[2].resume()
    wait_until(lambda: 3 in load.versions_of(50))  # it is left out for 10 s
    assert not load.failures
