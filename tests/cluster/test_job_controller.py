"""How the Job controller handles exit codes and evictions. Pod statuses are set through the API: no node is needed."""

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.kubectl import INDEX, NAMESPACE, Cluster
from tests.k8s.manifests import kustomize
from tests.k8s.test_operations import NO_RETRY
from tests.waiting import wait_until
from trainer.errors import ExitCode

RETRY = [ExitCode.PEERS.value, ExitCode.BUG.value, ExitCode.IO.value, ExitCode.STOPPED.value, 137]
"""Exit codes after which one worker is tried again; 137 is a killed process."""

BACKOFF_SECONDS = 60
"""More than the Job controller waits before its second attempt."""

Start = Callable[..., str]


@pytest.fixture
def start(namespace: Cluster) -> Iterator[Start]:
    """A function that applies a Job of the manifests and returns its name; all of them are deleted at the end."""
    if namespace.nodes():
        pytest.skip("the cluster has nodes, and their agents report the pod statuses")
    started: list[str] = []

    def apply(resources: str = "base/training", *components: str) -> str:
        manifests = kustomize((resources,), components, namespace=NAMESPACE)
        namespace.apply(manifests)
        started.append("rollback" if resources == "overlays/rollback" else "train")
        return started[-1]

    yield apply
    for job in started:
        namespace.delete_job(job)


def wait_for_pods(cluster: Cluster, job: str, count: int) -> list:
    """The pods of a Job, as soon as it has made so many."""
    wait_until(lambda: len(cluster.pods(job)) >= count, BACKOFF_SECONDS)
    return cluster.pods(job)


@pytest.mark.parametrize("container", ["train", "data"])
@pytest.mark.parametrize("code", NO_RETRY)
def test_a_failure_that_a_retry_cannot_help_fails_the_job_at_once(
    namespace: Cluster, start: Start, code: int, container: str
) -> None:
    job = start()
    [pod] = wait_for_pods(namespace, job, 1)
    namespace.end_pod(pod, code, container=container)
    failed = namespace.wait_for_job(job, "Failed", seconds=20)
    assert failed["reason"] == "PodFailurePolicy"
    assert f"Container {container} " in failed["message"]
    assert f"exit code {code} " in failed["message"]
    assert len(namespace.pods(job)) == 1


@pytest.mark.parametrize("code", RETRY)
def test_another_failure_is_tried_again_and_counts(namespace: Cluster, start: Start, code: int) -> None:
    job = start()
    [pod] = wait_for_pods(namespace, job, 1)
    namespace.end_pod(pod, code)
    wait_for_pods(namespace, job, 2)
    assert namespace.get("job", job)["status"]["failed"] == 1


def test_an_evicted_pod_is_replaced_and_does_not_count(namespace: Cluster, start: Start) -> None:
    job = start()
    [pod] = wait_for_pods(namespace, job, 1)
    namespace.end_pod(pod, ExitCode.STOPPED, evicted=True)
    wait_for_pods(namespace, job, 2)
    assert namespace.get("job", job)["status"].get("failed", 0) == 0


@pytest.mark.parametrize("code", [ExitCode.STOPPED, ExitCode.PEERS], ids=["saved by a signal", "lost a peer"])
def test_the_eviction_of_one_of_two_workers_replaces_both_and_does_not_count(
    namespace: Cluster, start: Start, code: int
) -> None:
    job = start("base/training", "multi-worker")
    evicted, other = wait_for_pods(namespace, job, 2)
    namespace.end_pod(evicted, ExitCode.STOPPED, evicted=True)
    namespace.end_pod(other, code)
    wait_for_pods(namespace, job, 4)
    assert namespace.get("job", job)["status"].get("failed", 0) == 0


def test_the_job_is_complete_when_the_chief_is_whatever_the_other_worker_does(namespace: Cluster, start: Start) -> None:
    job = start("base/training", "multi-worker")
    by_index = {pod["metadata"]["labels"][INDEX]: pod for pod in wait_for_pods(namespace, job, 2)}
    namespace.end_pod(by_index["1"], ExitCode.PEERS)
    namespace.end_pod(by_index["0"], ExitCode.OK)
    namespace.wait_for_job(job, "Complete", seconds=20)


def test_an_evicted_rollback_fails_and_is_not_tried_again(namespace: Cluster, start: Start) -> None:
    """A second attempt would retire a second version."""
    job = start("overlays/rollback")
    [pod] = wait_for_pods(namespace, job, 1)
    namespace.end_pod(pod, 137, evicted=True)
    namespace.wait_for_job(job, "Failed", seconds=20)
    assert len(namespace.pods(job)) == 1
