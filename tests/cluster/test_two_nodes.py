"""Two workers on two nodes train one model on a shared volume, and a drain evicts the servers one at a time."""

import json
import threading
from collections.abc import Iterator

import pytest

from tests.cluster.kubectl import NAMESPACE, Cluster
from tests.cluster.test_local_overlay import MINUTES
from tests.k8s.manifests import REPOSITORY, Object, kustomize

SHARED_VOLUME = REPOSITORY / "tests" / "cluster" / "shared_volume.yaml"

QUICKSTART: tuple[Object, ...] = (
    {
        "target": {"kind": "Job", "name": "train"},
        "patch": json.dumps(
            [
                {
                    "op": "replace",
                    "path": "/spec/template/spec/initContainers/0/args/3",
                    "value": "--dataset=optdigits",
                },
                {"op": "replace", "path": "/spec/template/spec/containers/0/args/2", "value": "--preset=quickstart"},
                {
                    "op": "add",
                    "path": "/spec/template/spec/topologySpreadConstraints",
                    "value": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "training"}},
                        }
                    ],
                },
            ]
        ),
    },
    {
        "target": {"kind": "Deployment", "name": "serving"},
        "patch": json.dumps([{"op": "replace", "path": "/spec/replicas", "value": 2}]),
    },
)
"""The embedded digits, one worker per node, and two servers."""


@pytest.fixture(scope="module")
def trained(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster after two workers have trained and published; the stack is deleted at the end."""
    if len(cluster.nodes()) < 2:
        pytest.skip("the cluster has less than two nodes to run pods")
    manifests = kustomize(("namespace", "base"), ("multi-worker", "rwx-storage"), QUICKSTART, NAMESPACE)
    volume = SHARED_VOLUME.read_text()
    cluster.apply(volume)
    cluster.apply(manifests)
    try:
        cluster.wait_for_job("train", "Complete", 20 * MINUTES)
        yield cluster
    finally:
        cluster("delete", "--filename=-", "--ignore-not-found", stdin=manifests, timeout=600)
        cluster("delete", "--filename=-", "--ignore-not-found", stdin=volume, timeout=120)


def test_two_workers_on_two_nodes_train_one_model(trained: Cluster) -> None:
    workers = trained.pods("train")
    assert len({worker["spec"]["nodeName"] for worker in workers}) == 2
    log = trained(
        "logs", "--selector=batch.kubernetes.io/job-completion-index=0", f"--namespace={NAMESPACE}", "--tail=-1"
    )
    assert "Published as version" in log


def test_a_drain_evicts_one_server_at_a_time(trained: Cluster) -> None:
    def status() -> str:
        return trained(
            "rollout", "status", "deployment/serving", f"--namespace={NAMESPACE}", "--timeout=600s", timeout=620
        )

    status()
    servers = trained.objects("pods", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/component=serving")
    nodes = [server["spec"]["nodeName"] for server in servers]
    assert len(set(nodes)) == 2, "the servers are spread"
    ready: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            ready.append(trained.get("deployment", "serving")["status"].get("readyReplicas", 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        trained(
            "drain", nodes[0], "--ignore-daemonsets", "--delete-emptydir-data",
            "--pod-selector=app.kubernetes.io/name=digits", "--timeout=180s", timeout=200,
        )  # fmt: skip
        status()
    finally:
        done.set()
        watcher.join()
        trained("uncordon", nodes[0])
    assert min(ready) >= 1
