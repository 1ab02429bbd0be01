"""Versions beyond the conformance cases: start, retries, draining, policies, stop."""

import asyncio
import itertools
import signal
import subprocess
import sys
import threading

import grpc
import pytest

import serving.local_server.versions.manager as manager
from serving.local_server.model.servable import Servable
from serving.local_server.server import LocalServer
from serving.local_server.versions.discovery import VersionPolicy, find_versions
from serving.local_server.versions.models import Models
from tests.ports import free_port, port_is_open
from tests.serving.conftest import serve_in_a_process
from tests.serving.saved_models import images_of, write_version
from tests.serving.stubs import Stubs, predict_request, rejected, version_of
from tests.waiting import wait_until

IMAGES = images_of(4)
FAST = {"poll_wait_seconds": 0.05}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "digits"


@pytest.fixture
def wait_for_polls(monkeypatch):
    """A function that returns after the server has polled the base path three more times."""
    polls = itertools.count(1)
    done = 0

    def counting(path):
        nonlocal done
        done = next(polls)
        return find_versions(path)

    monkeypatch.setattr(manager, "find_versions", counting)

    def wait():
        target = done + 3  # the first may have begun before the files changed
        wait_until(lambda: done >= target)

    return wait


def test_a_server_waits_for_a_missing_base_path(models, wait_for_polls):
    server = LocalServer(models, **FAST)
    server.start()
    try:
        wait_for_polls()
        assert not server.wait_until_serving(0)
        assert server.target is None
        write_version(models, 1)
        assert server.wait_until_serving(60)
        with Stubs(server.target) as stubs:
            assert version_of(stubs.predict(predict_request(IMAGES))) == 1
    finally:
        server.stop()


def test_the_context_times_out_and_names_the_base_path(models):
    with pytest.raises(TimeoutError, match=str(models)), LocalServer(models, **FAST, start_timeout_seconds=0.2):
        pass


def test_a_first_version_that_fails_ends_the_start_with_its_error(models):
    (models / "1").mkdir(parents=True)
    with (
        pytest.raises(RuntimeError, match=r"version 1.*SavedModel"),
        LocalServer(models, **FAST, max_load_retries=0),
    ):
        pass


def test_a_failed_load_is_retried_until_it_succeeds(models, wait_for_polls):
    unfinished = write_version(models, "elsewhere")
    (models / "1").mkdir()
    server = LocalServer(models, **FAST, max_load_retries=1000, load_retry_interval_seconds=0.05)
    server.start()
    try:
        wait_for_polls()
        assert not server.wait_until_serving(0)
        for child in unfinished.iterdir():
            child.rename(models / "1" / child.name)
        assert server.wait_until_serving(60)
    finally:
        server.stop()


def test_a_failed_version_is_ignored_until_its_directory_goes_and_comes_back(models, wait_for_polls):
    write_version(models, 1)
    with LocalServer(models, **FAST, max_load_retries=0) as server, Stubs(server.target) as stubs:
        (models / "2").mkdir()
        wait_until(lambda: stubs.state(2) == "END")
        for child in write_version(models, "elsewhere").iterdir():
            child.rename(models / "2" / child.name)
        wait_for_polls()
        assert stubs.state(2) == "END"
        (models / "2").rename(models / "2.away")
        wait_for_polls()
        assert stubs.status()[2][1] != 0, "the version stays listed with its error"
        (models / "2.away").rename(models / "2")
        wait_until(lambda: stubs.state(2) == "AVAILABLE")
        assert stubs.status()[2] == ("AVAILABLE", 0, "")


def test_when_all_versions_are_gone_all_are_unloaded_and_a_new_one_is_served(models):
    only = write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        only.rename(models / "1.retired")
        wait_until(lambda: stubs.state(1) == "END")
        with rejected("NOT_FOUND"):
            stubs.predict(predict_request(IMAGES))
        write_version(models, 2)
        wait_until(lambda: stubs.state(2) == "AVAILABLE")
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2


def test_a_base_path_that_is_away_for_a_moment_unloads_nothing(models, wait_for_polls):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        models.rename(models.with_name("away"))
        wait_for_polls()
        assert version_of(stubs.predict(predict_request(IMAGES))) == 1


def test_policies_keep_the_versions_they_name(models):
    for version in (1, 2, 3):
        write_version(models, version)
    policies = {VersionPolicy.latest(2): {2, 3}, VersionPolicy.all(): {1, 2, 3}, VersionPolicy.specific(1): {1}}
    for policy, versions in policies.items():
        with LocalServer(models, **FAST, version_policy=policy) as server, Stubs(server.target) as stubs:
            wait_until(lambda: len(stubs.status()) == len(versions))  # noqa: B023 - done before the next round
            wait_until(lambda: all(state[0] == "AVAILABLE" for state in stubs.status().values()))
            assert set(stubs.status()) == versions
            assert version_of(stubs.predict(predict_request(IMAGES))) == max(versions)


def test_a_label_of_a_version_that_is_not_loaded_is_not_found(models):
    write_version(models, 1)
    labels = {"stable": 1, "next": 2}
    with LocalServer(models, **FAST, version_labels=labels) as server, Stubs(server.target) as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES, label="stable"))) == 1
        with rejected("NOT_FOUND", "2"):
            stubs.predict(predict_request(IMAGES, label="next"))


def test_a_version_is_unloaded_after_its_requests_in_flight(models, held_runs):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        slow = stubs.prediction.Predict.future(predict_request(IMAGES), timeout=60)
        assert held_runs.begun.wait(60)
        write_version(models, 2)
        wait_until(lambda: stubs.state(1) == "UNLOADING")
        assert not slow.done()
        assert stubs.state(2) == "AVAILABLE"
        held_runs.release.set()
        assert version_of(slow.result()) == 1
        wait_until(lambda: stubs.state(1) == "END")


def test_a_deadline_that_passes_during_a_run_does_not_delay_unloading(models, held_runs):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        stubs.status()  # connects, so that the next request arrives before its deadline
        with rejected("DEADLINE_EXCEEDED"):
            stubs.predict(predict_request(IMAGES), timeout=1)
        assert held_runs.begun.is_set()
        write_version(models, 2)
        wait_until(lambda: stubs.state(2) == "AVAILABLE")
        held_runs.release.set()
        wait_until(lambda: stubs.state(1) == "END")
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2


@pytest.mark.parametrize("setting", ["port", "rest_port"])
def test_a_taken_port_fails_before_a_version_loads(models, setting):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server:
        port = int(server.target.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            LocalServer(models, **{setting: port}).start()


def test_after_sigterm_requests_in_flight_finish_new_ones_fail_and_the_process_exits_0(models):
    write_version(models, 1, work=1500)
    with serve_in_a_process(models) as (process, stubs):
        slow = stubs.prediction.Predict.future(predict_request(IMAGES), timeout=60)
        stubs.status()  # sent after `slow` on the same connection: its response means that both have arrived
        process.send_signal(signal.SIGTERM)
        request = predict_request(IMAGES, version=99)
        wait_until(lambda: stubs.prediction.Predict.future(request).code() == grpc.StatusCode.UNAVAILABLE)
        assert not slow.done()
        assert version_of(slow.result()) == 1
        assert process.wait(60) == 0


def test_sigterm_before_a_first_version_exits_0(models):
    port = free_port()
    command = [sys.executable, "-m", "serving", "serve", str(models), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert any("cannot list the base path" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not port_is_open(port)


def test_a_server_that_stops_while_its_first_version_loads_opens_no_port(models, monkeypatch):
    loading, stopping = threading.Event(), threading.Event()
    load, stop = Servable.__init__, Models.stop

    def load_slowly(self, *args, **kwargs):
        loading.set()
        assert stopping.wait(30)
        load(self, *args, **kwargs)

    def stop_and_tell(self):
        stopping.set()
        stop(self)

    monkeypatch.setattr(Servable, "__init__", load_slowly)
    monkeypatch.setattr(Models, "stop", stop_and_tell)
    write_version(models, 1)
    port = free_port()
    server = LocalServer(models, port=port, **FAST)
    server.start()
    assert loading.wait(30)
    server.stop()
    assert not port_is_open(port)


def test_two_servers_in_one_process_are_independent(models, tmp_path):
    write_version(models, 1)
    write_version(tmp_path / "others", 5)
    with (
        LocalServer(models, **FAST) as one,
        LocalServer(tmp_path / "others", model_name="others", **FAST) as other,
        Stubs(one.target) as one_stubs,
        Stubs(other.target) as other_stubs,
    ):
        assert version_of(one_stubs.predict(predict_request(IMAGES))) == 1
        assert version_of(other_stubs.predict(predict_request(IMAGES, name="others"))) == 5
        with rejected("NOT_FOUND"):
            other_stubs.predict(predict_request(IMAGES))


def test_a_second_stop_does_nothing_and_the_threads_end(models):
    write_version(models, 1)
    before = threading.active_count()
    server = LocalServer(models, **FAST)
    with server:
        assert isinstance(grpc.insecure_channel(server.target), grpc.Channel)
    server.stop()
    wait_until(lambda: threading.active_count() <= before)


def test_it_starts_and_stops_inside_a_running_event_loop_as_in_a_notebook(tmp_path):
    write_version(tmp_path, 7)

    async def cell():
        with LocalServer(tmp_path) as server, Stubs(server.target) as stubs:
            return version_of(stubs.predict(predict_request(IMAGES)))

    assert asyncio.run(cell()) == 7
