"""The life of a version beyond the conformance cases: start, retries, draining, policies, stop."""

import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest

from serving.local_server.model.servable import Servable
from serving.local_server.server import LocalServer
from serving.local_server.versions.discovery import VersionPolicy
from tests.ports import free_port, port_is_open
from tests.serving.conftest import serve_in_a_process
from tests.serving.saved_models import images_of, write_version
from tests.serving.stubs import Stubs, predict_request, refused, version_of
from tests.waiting import wait_until

IMAGES = images_of(4)
FAST = {"poll_wait_seconds": 0.05}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "digits"


def test_a_missing_base_path_is_waited_for(models):
    server = LocalServer(models, **FAST)
    server.start()
    try:
        assert not server.wait_until_serving(0.3)
        assert server.target is None
        write_version(models, 1)
        assert server.wait_until_serving(20)
        with Stubs(server.target) as stubs:
            assert version_of(stubs.predict(predict_request(IMAGES))) == 1
    finally:
        server.stop()


def test_entering_the_context_gives_up_in_the_end_and_says_where_it_looked(models):
    with pytest.raises(TimeoutError, match=str(models)), LocalServer(models, **FAST, start_timeout_seconds=0.2):
        pass


def test_a_first_version_that_fails_ends_the_start_with_its_error(models):
    (models / "1").mkdir(parents=True)
    with (
        pytest.raises(RuntimeError, match=r"version 1.*SavedModel"),
        LocalServer(models, **FAST, max_load_retries=0),
    ):
        pass


def test_a_failed_load_is_tried_again_and_succeeds_once_the_files_are_there(models):
    unfinished = write_version(models, "elsewhere")
    (models / "1").mkdir()
    server = LocalServer(models, **FAST, max_load_retries=1000, load_retry_interval_seconds=0.05)
    server.start()
    try:
        assert not server.wait_until_serving(0.3)
        for child in unfinished.iterdir():
            child.rename(models / "1" / child.name)
        assert server.wait_until_serving(20)
    finally:
        server.stop()


def test_a_version_given_up_is_not_tried_again_until_its_directory_has_gone_and_come_back(models):
    write_version(models, 1)
    with LocalServer(models, **FAST, max_load_retries=0) as server, Stubs(server.target) as stubs:
        (models / "2").mkdir()
        wait_until(lambda: stubs.state(2) == "END")
        for child in write_version(models, "elsewhere").iterdir():
            child.rename(models / "2" / child.name)
        time.sleep(0.3)
        assert stubs.state(2) == "END"
        (models / "2").rename(models / "2.away")
        time.sleep(0.3)
        assert stubs.status()[2][1] != 0, "it stays listed with its error"
        (models / "2.away").rename(models / "2")
        wait_until(lambda: stubs.state(2) == "AVAILABLE")
        assert stubs.status()[2] == ("AVAILABLE", 0, "")


def test_when_all_versions_are_gone_all_are_unloaded_and_a_new_one_is_served(models):
    only = write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        only.rename(models / "1.retired")
        wait_until(lambda: stubs.state(1) == "END")
        with refused("NOT_FOUND"):
            stubs.predict(predict_request(IMAGES))
        write_version(models, 2)
        wait_until(lambda: stubs.state(2) == "AVAILABLE")
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2


def test_a_base_path_that_is_gone_for_a_moment_unloads_nothing(models):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        models.rename(models.with_name("away"))
        time.sleep(0.3)
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
        with refused("NOT_FOUND", "2"):
            stubs.predict(predict_request(IMAGES, label="next"))


def test_a_request_in_flight_is_answered_by_its_version_before_that_is_unloaded(models):
    write_version(models, 1, work=1500)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        slow = stubs.prediction.Predict.future(predict_request(IMAGES), timeout=60)
        write_version(models, 2)
        wait_until(lambda: stubs.state(1) == "UNLOADING")
        assert not slow.done()
        assert stubs.state(2) == "AVAILABLE"
        assert version_of(slow.result()) == 1
        wait_until(lambda: stubs.state(1) == "END")


def test_a_request_whose_deadline_passes_in_a_run_does_not_hurt_the_unloading(models):
    write_version(models, 1, work=1500)
    with LocalServer(models, **FAST) as server, Stubs(server.target) as stubs:
        with refused("DEADLINE_EXCEEDED"):
            stubs.predict(predict_request(IMAGES), timeout=0.1)
        write_version(models, 2)
        wait_until(lambda: stubs.state(1) == "END")
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(models):
    write_version(models, 1)
    with LocalServer(models, **FAST) as server:
        port = int(server.target.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            LocalServer(models, port=port).start()


def test_sigterm_lets_requests_in_flight_finish_takes_no_new_ones_and_exits_0(models):
    write_version(models, 1, work=1500)
    with serve_in_a_process(models) as (process, stubs):
        slow = stubs.prediction.Predict.future(predict_request(IMAGES), timeout=60)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with refused("UNAVAILABLE"):
            stubs.predict(predict_request(IMAGES))
        assert version_of(slow.result()) == 1
        assert process.wait(20) == 0


def test_sigterm_while_it_waits_for_a_first_version_exits_0(models):
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "serving", "serve", str(models), "--port", str(port)])
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not port_is_open(port)


def test_a_server_stopped_while_its_first_version_loads_opens_no_port(models, monkeypatch):
    loading = threading.Event()

    def load_slowly(self, *args, **kwargs):
        loading.set()
        time.sleep(1)
        return load(self, *args, **kwargs)

    load = Servable.__init__
    monkeypatch.setattr(Servable, "__init__", load_slowly)
    write_version(models, 1)
    port = free_port()
    server = LocalServer(models, port=port, **FAST)
    server.start()
    assert loading.wait(30)
    server.stop()
    assert not port_is_open(port)


def test_two_servers_in_one_process_do_not_meet(models, tmp_path):
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
        with refused("NOT_FOUND"):
            other_stubs.predict(predict_request(IMAGES))


def test_stopping_twice_is_harmless_and_frees_the_threads(models):
    write_version(models, 1)
    before = threading.active_count()
    server = LocalServer(models, **FAST)
    with server:
        assert isinstance(grpc.insecure_channel(server.target), grpc.Channel)
    server.stop()
    wait_until(lambda: threading.active_count() <= before)
