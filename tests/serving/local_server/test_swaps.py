"""Versions are swapped under load: no request is lost, and each is answered by a version that was live."""

import threading
import time

import pytest

from serving.local_server.server import LocalServer
from tests.serving.saved_models import expected_digits, images_of, write_version
from tests.serving.stubs import Stubs, digits_of, predict_request, version_of
from tests.waiting import wait_until

IMAGES = images_of(2, 5, 8)


def test_four_swaps_in_six_seconds_of_load_lose_nothing(tmp_path):
    swap_under_load(tmp_path / "digits", swaps=4, seconds=6)


@pytest.mark.slow
def test_ten_swaps_in_a_minute_of_load_lose_nothing(tmp_path):
    swap_under_load(tmp_path / "digits", swaps=10, seconds=60)


def swap_under_load(base_path, *, swaps, seconds, threads=8):
    """Publishes and rolls back in turn, so that the shift of the version served last is known at every moment."""
    write_version(base_path, 1, shift=1)
    load = Load()
    with LocalServer(base_path, poll_wait_seconds=0.1) as server:
        workers = [threading.Thread(target=load.ask, args=(server.target,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        with Stubs(server.target) as stubs:
            published = [1]
            calm = []  # (from, until, the one version that was live)
            since = time.monotonic()
            for number in range(2, swaps + 2):
                time.sleep(seconds / swaps)
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
    assert len(load.answers) > 100 * swaps
    assert {version for version, _, _, _ in load.answers} == {1, *range(2, swaps + 2, 2)}
    for version, digits, started, ended in load.answers:
        assert digits == expected_digits(IMAGES, shift=version % 10).tolist()
        live = {only for since, until, only in calm if since <= started and ended <= until}
        assert live <= {version}, f"version {version} answered while only {live} was live"
    print(f"{len(load.answers)} answers, {swaps} swaps, no failure")


def settled(stubs, version):
    """Whether `version` alone is being served; from then on no other may answer."""
    return [number for number, state in stubs.status().items() if state[0] != "END"] == [version]


class Load:
    """Asks until stopped, and keeps every answer as (version, digits, started, ended)."""

    def __init__(self):
        self.answers, self.failures = [], []
        self._done = threading.Event()

    def ask(self, target):
        with Stubs(target) as stubs:
            while not self._done.is_set():
                started = time.monotonic()
                try:
                    response = stubs.predict(predict_request(IMAGES))
                except Exception as error:
                    self.failures.append(error)
                    continue
                self.answers.append((version_of(response), digits_of(response), started, time.monotonic()))

    def stop(self):
        self._done.set()
