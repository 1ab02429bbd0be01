"""Two servers behind one target: one is killed under load, no request fails, and it is used again after its restart."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.client import DigitClient
from tests.ports import free_port
from tests.serving.saved_models import write_version

IMAGES = np.zeros((4, 28, 28), np.uint8)
CALLERS = 16


class _Replica:
    """A local server in a process of its own; the version in each response tells the replicas apart."""

    def __init__(self, base_path, version):
        self.base_path, self.version = base_path / str(version), version
        write_version(self.base_path, version)
        self.port = free_port()
        self.start()

    def start(self):
        command = [sys.executable, "-m", "serving", "serve", str(self.base_path), "--port", str(self.port)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self):
        with DigitClient(f"127.0.0.1:{self.port}") as client:
            client.wait_until_available(self.version, timeout_seconds=120)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class _Load:
    """Threads that send requests without a pause until stopped; counts responses by version and keeps the failures."""

    def __init__(self, client):
        self._client, self._stop, self._pool = client, threading.Event(), ThreadPoolExecutor(CALLERS)
        self.responses, self.failures = Counter(), []
        self._callers = [self._pool.submit(self._send) for _ in range(CALLERS)]

    def _send(self):
        while not self._stop.is_set():
            try:
                self.responses[int(self._client.predict(IMAGES).version[0])] += 1
            except Exception as error:  # the test expects none, of any kind
                self.failures.append(error)

    def responses_in(self, seconds):
        before = self.responses.copy()
        time.sleep(seconds)
        return self.responses - before

    def stop(self):
        self._stop.set()
        self._pool.shutdown()


@pytest.fixture
def replicas(tmp_path):
    started = [_Replica(tmp_path, version) for version in (1, 2)]
    try:
        for replica in started:
            replica.wait()
        yield started
    finally:
        for replica in started:
            replica.kill()


@pytest.mark.slow
def test_a_killed_replica_fails_no_request_and_is_used_again_after_its_restart(replicas):
    kept, killed = replicas
    with DigitClient(f"ipv4:///127.0.0.1:{kept.port},127.0.0.1:{killed.port}") as client:
        load = _Load(client)
        try:
            assert set(load.responses_in(2)) == {1, 2}
            killed.kill()
            load.responses_in(1)
            assert set(load.responses_in(2)) == {1}
            killed.start()
            killed.wait()
            load.responses_in(4)  # twice the longest pause between two attempts to connect
            shares = load.responses_in(2)
        finally:
            load.stop()
    assert not load.failures
    assert min(shares[1], shares[2]) > 0.25 * shares.total()
