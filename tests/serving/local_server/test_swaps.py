"""Versions are swapped under load: no request fails, and each response comes from a version that was served then."""

import threading
import time

import pytest

from serving.local_server.server import LocalServer
from tests.serving.saved_models import expected_digits, images_of, write_version
from tests.serving.stubs import Stubs, digits_of, predict_request, version_of
from tests.waiting import wait_until

IMAGES = images_of(2, 5, 8)


def test_four_swaps_under_load_lose_nothing(tmp_path):
    swap_under_load(tmp_path / "digits", swaps=4, responses_per_swap=100)


@pytest.mark.slow
def test_ten_swaps_under_heavy_load_lose_nothing(tmp_path):
    swap_under_load(tmp_path / "digits", swaps=10, responses_per_swap=1500)


def swap_under_load(base_path, *, swaps, responses_per_swap, threads=8):
    """Publish and roll back in turn, so that the shift of the served version is known at every moment."""
    write_version(base_path, 1, shift=1)
    load = Load()
    with LocalServer(base_path, poll_wait_seconds=0.1) as server:
        workers = [threading.Thread(target=load.send, args=(server.target,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        with Stubs(server.target) as stubs:
            published = [1]
            calm = []  # (from, until, the only version that was served)
            since = time.monotonic()
            for number in range(2, swaps + 2):
                load.wait_for(responses_per_swap)
                calm.append((since, time.monotonic(), published[-1]))
                if number % 2 == 0:
                    write_version(base_path, number, shift=number % 10)
                    published.append(number)
                else:
                    newest = published.pop()
                    (base_path / str(newest)).rename(base_path / f"{newest}.retired")
                wait_until(lambda: settled(stubs, published[-1]))
                since = time.monotonic()
        load.stop()
        for worker in workers:
            worker.join()
    assert not load.failures, load.failures[:3]
    assert {version for version, _, _, _ in load.responses} == {1, *range(2, swaps + 2, 2)}
    for version, digits, started, ended in load.responses:
        assert digits == expected_digits(IMAGES, shift=version % 10).tolist()
        live = {only for since, until, only in calm if since <= started and ended <= until}
        assert live <= {version}, f"version {version} responded while only {live} was served"
    print(f"{len(load.responses)} responses, {swaps} swaps, no failure")


def settled(stubs, version):
    """Return whether only `version` is served; from then on no other version may respond."""
    return [number for number, state in stubs.status().items() if state[0] != "END"] == [version]


class Load:
    """Sends requests until stopped, and keeps every response as (version, digits, started, ended)."""

    def __init__(self):
        self.responses, self.failures = [], []
        self._done = threading.Event()

    def wait_for(self, count):
        """Wait for `count` more responses."""
        target = len(self.responses) + len(self.failures) + count
        wait_until(lambda: len(self.responses) + len(self.failures) >= target, timeout_seconds=120)

    def send(self, target):
        with Stubs(target) as stubs:
            while not self._done.is_set():
                started = time.monotonic()
                try:
                    response = stubs.predict(predict_request(IMAGES))
                except Exception as error:
                    self.failures.append(error)
                    continue
                self.responses.append((version_of(response), digits_of(response), started, time.monotonic()))

    def stop(self):
        self._done.set()
