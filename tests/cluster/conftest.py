"""The manifests in a real cluster. The tests take minutes and change the cluster. `make test-cluster` runs them.

CLUSTER_CONTEXT   the kubectl context of a cluster that may be changed; the namespace `digits` must not exist there

Scenarios with running pods need nodes, as in kind, minikube or k3s, with the images of `make images` loaded. Where an API
server and a controller manager run without any node, the other scenarios run, and set pod statuses through the API.
"""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.kubectl import NAMESPACE, Cluster
from tests.k8s.manifests import kustomize


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with no namespace of ours."""
    context = os.environ.get("CLUSTER_CONTEXT")
    if not context:
        pytest.skip("CLUSTER_CONTEXT is not set; `make test-cluster CONTEXT=...` sets it")
    cluster = Cluster(context)
    if cluster.exists("namespace", NAMESPACE):
        pytest.fail(f"namespace {NAMESPACE} exists in {context}: these tests would change it", pytrace=False)
    return cluster


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with our namespace, which is deleted at the end."""
    cluster.apply(kustomize(("namespace",)))
    yield cluster
    cluster("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=600)
