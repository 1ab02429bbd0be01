"""What operators do with a stack: evict, drain, run again beside it, roll back, and use their own registry."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.checks.wiring import workers
from tests.k8s.manifests import K8S, STACKS, Object, different, environment, named, of_kind, parse, pods, render
from trainer.errors import ExitCode

NO_RETRY = [code.value for code in ExitCode if ExitCode.USAGE <= code <= ExitCode.MEMORY]
EVICTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def training_jobs() -> list[Object]:
    """Every different Job of the training component."""
    found = different(job for stack in STACKS for job in of_kind(render(stack), "Job"))
    return [job for job in found if job["metadata"]["labels"]["app.kubernetes.io/component"] == "training"]


def tolerates_gpu_nodes(pod: Object) -> bool:
    return any(each.get("key") == "nvidia.com/gpu" for each in pod.get("tolerations", []))


def test_the_policy_fails_a_job_at_once_where_a_retry_cannot_help_and_ignores_evictions() -> None:
    kinds = set()
    for job in training_jobs():
        rules = job["spec"]["podFailurePolicy"]["rules"]
        fail = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": NO_RETRY}}
        if job["metadata"]["name"] == "rollback":
            kinds.add("rollback")
            assert rules == [fail]
        elif job["spec"].get("completionMode") == "Indexed":
            kinds.add("several workers")
            # One eviction stops every worker with 75, and only the evicted pod has the condition.
            left = [ExitCode.PEERS.value, ExitCode.STOPPED.value]
            assert rules == [EVICTED, fail, {"action": "Ignore", "onExitCodes": {"operator": "In", "values": left}}]
        else:
            kinds.add("one worker")
            assert rules == [EVICTED, fail]
    assert kinds == {"rollback", "several workers", "one worker"}


def test_an_evicted_rollback_is_not_tried_again() -> None:
    """A second attempt would retire a second version; `backoffLimit: 0` alone does not prevent it."""
    job = named(render("rollback"), "Job", "rollback")["spec"]
    assert job["backoffLimit"] == 0
    assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["FailJob"]


def test_a_rollback_beside_a_gpu_stack_can_run_on_the_tainted_node_of_the_volume() -> None:
    for pod in pods(render("gpu-single-node+rollback")):
        if pod.labels.get("mounts") == "artifacts":
            assert tolerates_gpu_nodes(pod.spec), pod.name


@pytest.mark.parametrize("name", sorted({path.name for path in (K8S / "overlays").iterdir()} - {"local"}))
def test_an_overlay_for_a_registry_names_each_of_our_images(name: str) -> None:
    """Only the local overlay has images without a registry; another overlay would request them from the public one."""
    kustomization = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())
    rendered = parse(subprocess.check_output(["kubectl", "kustomize", K8S / "overlays" / name], text=True))
    used = {container["image"].split(":")[0] for pod in pods(rendered) for container in pod.containers}
    listed = {image["name"] for image in kustomization["images"]}
    assert {image for image in used if image.startswith("digits-")} <= listed


@pytest.mark.parametrize(
    ("beside", "components"),
    [("gpu-single-node", ["gpu"]), ("gpu-multi-worker", ["gpu", "multi-worker", "rwx-storage"])],
)
def test_another_run_beside_a_gpu_overlay_works_as_its_comment_says(
    beside: str, components: list[str], tmp_path: Path
) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "another-run" / "kustomization.yaml"
    line = ", ".join(f"../../components/{name}" for name in components)
    assert f"beside {beside}:" in file.read_text()
    assert line in file.read_text()
    file.write_text(f"{file.read_text()}components: [{line}]\n")
    objects = parse(subprocess.check_output(["kubectl", "kustomize", file.parent], text=True))
    [pod] = pods(objects)
    [first] = pods([named(render(beside), "Job", "train")])
    assert pod.owner["metadata"]["name"] == "train-accurate"
    assert list(workers(objects)) == []
    assert tolerates_gpu_nodes(pod.spec)
    assert ("affinity" in pod.spec) == ("affinity" in first.spec), "both must agree on whether the volume binds them"
    assert environment(pod, pod.spec["containers"][0])["RUN"] == "train-accurate"


def test_a_drain_evicts_servers_one_at_a_time_where_they_need_not_share_a_node() -> None:
    for stack in STACKS:
        objects = render(stack)
        for budget in of_kind(objects, "PodDisruptionBudget"):
            [claim] = of_kind(objects, "PersistentVolumeClaim")
            spread = claim["spec"]["accessModes"] == ["ReadWriteMany"]
            assert budget["spec"]["maxUnavailable"] == (1 if spread else "100%"), stack
