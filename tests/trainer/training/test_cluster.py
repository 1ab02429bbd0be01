"""The description of a cluster, and the wait for its workers."""

import json
import socket
import threading
import time

import pytest

from tests.ports import free_port
from trainer.config import ConfigError
from trainer.training.cluster import Cluster, PeersError, find_cluster, wait_for_chief, wait_for_peers

JOB = {"JOB_COMPLETION_INDEX": "1", "DIGITS_WORKERS": "3", "DIGITS_JOB": "train", "DIGITS_SERVICE": "workers.ns"}


def tf_config(index: int = 0, kind: str = "worker", **jobs: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_a_cluster_comes_from_tf_config() -> None:
    assert find_cluster(tf_config(1, worker=["a:1", "b:2"])) == Cluster(("a:1", "b:2"), 1)
    assert find_cluster(tf_config(0, chief=["c:1"], worker=["a:1", "b:2"])) == Cluster(("c:1", "a:1", "b:2"), 1)
    chief = find_cluster(tf_config(0, "chief", chief=["c:1"], worker=["a:1"]))
    assert chief.is_chief
    assert chief.peers == ("a:1",)


def test_a_cluster_comes_from_an_indexed_jobs_environment() -> None:
    hosts = tuple(f"train-{i}.workers.ns:2222" for i in range(3))
    assert find_cluster(JOB) == Cluster(hosts, 1)
    assert find_cluster({**JOB, "DIGITS_WORKER_PORT": "7"}).workers[0] == "train-0.workers.ns:7"
    assert find_cluster({**JOB, **tf_config(0, worker=["a:1", "b:2"])}).workers == ("a:1", "b:2"), "TF_CONFIG wins"


def test_a_single_worker_is_no_cluster() -> None:
    assert find_cluster({}) is None
    assert find_cluster({"JOB_COMPLETION_INDEX": "0"}) is None
    assert find_cluster({**JOB, "DIGITS_WORKERS": "1"}) is None
    assert find_cluster(tf_config(0, worker=["a:1"])) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG is '{'"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG is"),
        (tf_config(0, worker=[1, 2]), "the address of a worker is 1; expected host:port"),
        (tf_config(0, ps=["a:1"], worker=["b:1"]), "unknown job: ps"),
        (tf_config(2, worker=["a:1", "b:2"]), "this is worker 2 of 2"),
        (tf_config(0, worker=["a:1", "a:1"]), "the same address"),
        (tf_config(0, worker=["a", "b:1"]), "the address of a worker is 'a'; expected host:port"),
        (tf_config(0, worker=["a:1", ":2"]), "the address of a worker is ':2'; expected host:port"),
        (tf_config(0, worker=["a:1", "b:http"]), "expected host:port"),
        ({**JOB, "DIGITS_SERVICE": ""}, "DIGITS_WORKERS is 3, but DIGITS_SERVICE is not set"),
        ({**JOB, "DIGITS_WORKERS": "many"}, "DIGITS_WORKERS is 'many'"),
        ({**JOB, "JOB_COMPLETION_INDEX": "3"}, "this is worker 3 of 3"),
    ],
    ids=str,
)
def test_a_wrong_description_is_rejected_with_the_reason(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_cluster(environment)
    assert message in str(raised.value)


def test_the_wait_names_the_missing_workers_and_the_reasons(capsys) -> None:
    refused = f"127.0.0.1:{free_port()}"
    cluster = Cluster((f"127.0.0.1:{free_port()}", refused, "worker.invalid:2222"), 0)
    with pytest.raises(PeersError) as raised:
        wait_for_peers(cluster, timeout_seconds=1.5, report_seconds=0.5)
    message = str(raised.value)
    assert "after 1.5 s 2 of 3 workers cannot be reached" in message
    assert f"{refused} (Connection refused)" in message
    assert "worker.invalid:2222 (its name does not resolve)" in message
    assert "waiting: 2 of 3 workers cannot be reached" in capsys.readouterr().err


def arrive_after(delays: tuple[float, ...]) -> list[Exception]:
    """The errors of workers that start to wait after these delays, in seconds."""
    workers = tuple(f"127.0.0.1:{free_port()}" for _ in delays)
    failures: list[Exception] = []
    all_arrived = threading.Barrier(len(delays))

    def arrive(index: int) -> None:
        time.sleep(delays[index])
        try:
            wait_for_peers(Cluster(workers, index), timeout_seconds=60)
            # TensorFlow listens next.
            with socket.create_server(("", int(workers[index].rpartition(":")[2]))):
                all_arrived.wait(60)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=arrive, args=(index,)) for index in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_workers_that_start_at_different_times_reach_each_other() -> None:
    assert arrive_after((0.0, 0.4, 0.8)) == []


def test_a_late_worker_can_still_connect_to_the_others(monkeypatch) -> None:
    # Nobody accepts these connections. Repeated attempts filled a worker's queue of 128 within a minute, and a late
    # worker could not connect any more.
    monkeypatch.setattr("trainer.training.cluster.PAUSE_SECONDS", 0.001)
    assert arrive_after((0.0, 0.0, 2.0)) == []


def test_a_worker_waits_until_the_chief_has_recorded_the_run_as_trained() -> None:
    answers = iter([False, False, True])
    with socket.create_server(("127.0.0.1", 0)) as chief:
        cluster = Cluster((f"127.0.0.1:{chief.getsockname()[1]}", "127.0.0.1:1"), 1)
        wait_for_chief(cluster, lambda: next(answers))
    assert list(answers) == []


def test_the_wait_for_the_chief_ends_when_it_is_gone(monkeypatch) -> None:
    monkeypatch.setattr("trainer.training.cluster.CHIEF_GRACE_SECONDS", 0.2)
    cluster = Cluster((f"127.0.0.1:{free_port()}", "127.0.0.1:1"), 1)
    with pytest.raises(PeersError, match="did not record the run as trained"):
        wait_for_chief(cluster, lambda: False)


def test_a_chief_that_has_exited_after_its_last_checkpoint_is_not_lost() -> None:
    """On a shared volume another node can see the last checkpoint some seconds late."""
    answers = iter([False, True])
    wait_for_chief(Cluster((f"127.0.0.1:{free_port()}", "127.0.0.1:1"), 1), lambda: next(answers))


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PeersError, match=f"cannot listen on port {port}"):
            wait_for_peers(Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0), timeout_seconds=1)
