"""Who the workers are, and the wait for those that are not there."""

import json
import socket
import threading
import time

import pytest

from tests.ports import free_port
from trainer.config import ConfigError
from trainer.training.cluster import Cluster, PeersError, find_cluster, wait_for_peers

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


def test_a_worker_on_its_own_is_no_cluster() -> None:
    assert find_cluster({}) is None
    assert find_cluster({"JOB_COMPLETION_INDEX": "0"}) is None
    assert find_cluster({**JOB, "DIGITS_WORKERS": "1"}) is None
    assert find_cluster(tf_config(0, worker=["a:1"])) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG is '{'"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG is"),
        (tf_config(0, ps=["a:1"], worker=["b:1"]), "no such job: ps"),
        (tf_config(2, worker=["a:1", "b:2"]), "this is worker 2 of 2"),
        (tf_config(0, worker=["a:1", "a:1"]), "named twice"),
        ({**JOB, "DIGITS_SERVICE": ""}, "DIGITS_WORKERS is 3, but DIGITS_SERVICE is not set"),
        ({**JOB, "DIGITS_WORKERS": "many"}, "DIGITS_WORKERS is 'many'"),
        ({**JOB, "JOB_COMPLETION_INDEX": "3"}, "this is worker 3 of 3"),
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_with_the_reason(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_cluster(environment)
    assert message in str(raised.value)


def test_the_wait_names_who_is_missing_and_why(capsys) -> None:
    refused = f"127.0.0.1:{free_port()}"
    cluster = Cluster((f"127.0.0.1:{free_port()}", refused, "worker.invalid:2222"), 0)
    with pytest.raises(PeersError) as raised:
        wait_for_peers(cluster, timeout_seconds=1.5, report_seconds=0.5)
    said = str(raised.value)
    assert "waited 1.5 s in vain for 2 of 3 workers" in said
    assert f"{refused} (Connection refused)" in said
    assert "worker.invalid:2222 (its name does not resolve)" in said
    assert "waiting for 2 of 3 workers" in capsys.readouterr().err


def arrive_after(delays: tuple[float, ...]) -> list[Exception]:
    """What went wrong when one worker came after each of the delays, in seconds."""
    workers = tuple(f"127.0.0.1:{free_port()}" for _ in delays)
    failures: list[Exception] = []

    def arrive(index: int) -> None:
        time.sleep(delays[index])
        try:
            wait_for_peers(Cluster(workers, index), timeout_seconds=30)
        except Exception as error:
            failures.append(error)
            return
        # What TensorFlow does next.
        with socket.create_server(("", int(workers[index].rpartition(":")[2]))):
            time.sleep(2)

    threads = [threading.Thread(target=arrive, args=(index,)) for index in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_workers_that_come_at_different_times_find_each_other() -> None:
    assert arrive_after((0.0, 0.4, 0.8)) == []


def test_a_worker_that_comes_late_finds_the_queues_of_the_others_open(monkeypatch) -> None:
    # Nobody accepts these connections. Asked again and again, a worker's queue of 128 was full after a minute, and the
    # late one could not get in any more.
    monkeypatch.setattr("trainer.training.cluster.PAUSE_SECONDS", 0.001)
    assert arrive_after((0.0, 0.0, 2.0)) == []


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PeersError, match=f"cannot listen on port {port}"):
            wait_for_peers(Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0), timeout_seconds=1)
