"""The API server accepts every manifest without a warning, a second apply changes nothing, and delete leaves nothing."""

import pytest

from tests.cluster.kubectl import NAMESPACE, Cluster
from tests.k8s.manifests import K8S, kustomize

ALWAYS_CONFIGURED = "poddisruptionbudget.policy/serving configured"
"""kubectl sends a budget's selector at every apply: the API marks it as a field that is replaced and not merged."""

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_an_overlay_without_a_warning(namespace: Cluster, overlay: str) -> None:
    namespace.apply(kustomize((f"overlays/{overlay}",)), "--dry-run=server")


@pytest.mark.parametrize("overlay", ["gpu-multi-worker", "gpu-single-node", "local"])
def test_a_second_apply_changes_nothing_and_delete_leaves_nothing(cluster: Cluster, overlay: str) -> None:
    manifests = kustomize((f"overlays/{overlay}",))
    try:
        cluster.apply(manifests)
        changed = [line for line in cluster.apply(manifests) if not line.endswith(" unchanged")]
        assert [line for line in changed if line != ALWAYS_CONFIGURED] == []
    finally:
        cluster("delete", "--filename=-", "--ignore-not-found", stdin=manifests, timeout=600)
    assert not cluster.exists("namespace", NAMESPACE)
