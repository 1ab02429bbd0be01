"""What operators do with a stack: evict, drain, run again beside it, roll back, and use their own registry."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
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


@pytest.mark.parametrize("stack", ["gpu-single-node+rollback", "gpu-single-node+learn"])
def test_what_mounts_the_volume_of_a_gpu_stack_can_run_on_its_tainted_node(stack: str) -> None:
    for pod in pods(render(stack)):
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
            spread = "affinity" not in named(objects, "Deployment", "serving")["spec"]["template"]["spec"]
            assert budget["spec"]["maxUnavailable"] == (1 if spread else "100%"), stack


def test_servers_of_a_bucket_mount_it_read_only_and_serve_a_named_version() -> None:
    """A folder in a bucket appears file by file: the newest one may be incomplete."""
    objects = render("base+bucket-models")
    [pod] = pods([named(objects, "Deployment", "serving")])
    [server] = pod.containers
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod.spec["volumes"]}
    mounts = [mount for mount in server["volumeMounts"] if claims[mount["name"]]]
    assert [(claims[mount["name"]]["claimName"], mount["readOnly"]) for mount in mounts] == [("models", True)]
    assert "mounts" not in pod.labels, "training pods would have to run beside the servers"
    [config] = [each for each in of_kind(objects, "ConfigMap") if "models.config" in each["data"]]
    assert "specific { versions: " in config["data"]["models.config"]
    assert set(config["data"]) == {"models.config", "batching.config", "monitoring.config"}


def test_the_steps_for_a_bucket_claim_its_volume_before_the_copy_that_mounts_it() -> None:
    """The component brings the claim, but it is added last: without a claim, the pod of the copy stays Pending."""
    copy = K8S / "overlays" / "copy-to-bucket"
    alone = parse(subprocess.check_output(["kubectl", "kustomize", copy], text=True))
    assert not of_kind(alone, "PersistentVolumeClaim"), "deleting the Job would delete the claim"
    steps = (K8S / "README.md").read_text().split("## Models in a bucket")[1].split("## ")[0]
    assert steps.index("components/bucket-models/claim.yaml") < steps.index("overlays/copy-to-bucket/job.yaml")


def run_copy(folder: Path) -> subprocess.CompletedProcess[str]:
    """The script of the copying Job, with `folder`/artifacts and `folder`/bucket as its volumes."""
    [pod] = pods([named(render("copy-to-bucket"), "Job", "copy-to-bucket")])
    [container] = pod.containers
    shell, options, script = container["command"]
    for path in ("/artifacts", "/bucket"):
        script = script.replace(path, f"{folder}{path}")
    values = environment(pod, container)
    return subprocess.run([shell, options, script], env={**os.environ, **values}, capture_output=True, text=True)


def test_a_copy_into_a_bucket_is_compared_and_can_be_repeated(tmp_path: Path) -> None:
    version = tmp_path / "artifacts" / "models" / "digits" / "20260101120000"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"graph")
    (version / "variables" / "variables.index").write_bytes(b"index")
    copy = tmp_path / "bucket" / "models" / "digits" / version.name
    copy.mkdir(parents=True)
    (copy / "saved_model.pb").write_bytes(b"graph")  # An earlier attempt was stopped after its first file.
    assert run_copy(tmp_path).returncode == 0
    assert (copy / "variables" / "variables.index").read_bytes() == b"index"
    assert run_copy(tmp_path).returncode == 0
    (copy / "saved_model.pb").write_bytes(b"other")
    failed = run_copy(tmp_path)
    assert failed.returncode != 0
    assert "saved_model.pb" in failed.stdout


@pytest.mark.parametrize(
    "file", sorted(path.name for path in (K8S / "components" / "bucket-models" / "volumes").iterdir())
)
def test_the_claim_of_a_bucket_fits_its_volume(file: str) -> None:
    volume = yaml.safe_load((K8S / "components" / "bucket-models" / "volumes" / file).read_text())
    kubernetes_validate.validate(volume, "1.31", strict=True)
    claim = named(render("copy-to-bucket"), "PersistentVolumeClaim", "models")
    assert volume["metadata"]["name"] == claim["spec"]["volumeName"]
    assert volume["spec"]["claimRef"] == {name: claim["metadata"][name] for name in ("namespace", "name")}
    for field in ("storageClassName", "accessModes"):
        assert volume["spec"][field] == claim["spec"][field]


def test_learning_is_suspended_and_its_job_retries_as_training_does() -> None:
    objects = render("base+web+learn")
    cron, job = named(objects, "CronJob", "learn")["spec"], named(objects, "Job", "train")["spec"]
    assert cron["suspend"] is True
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["jobTemplate"]["spec"]["podFailurePolicy"] == job["podFailurePolicy"]


def test_the_page_keeps_corrections_where_learning_reads_them() -> None:
    objects = render("base+web+learn")
    [web, learn] = pods([named(objects, "Deployment", "web"), named(objects, "CronJob", "learn")])
    [mount] = [mount for mount in web.containers[0]["volumeMounts"] if mount["name"] == "artifacts"]
    assert f"--collect={mount['mountPath']}" in web.containers[0]["args"]
    assert learn.containers[0]["args"][2] == f"/artifacts/{mount['subPath']}"


def test_the_documented_command_that_learns_at_once_names_a_new_run_each_time() -> None:
    """The Job's name is the run's name. A second run of that name has another version to start from, and exits with 2."""
    for file in (K8S / "README.md", K8S / "components" / "learn" / "cron-job.yaml"):
        [name] = re.findall(r"create job --from=cronjob/learn (\S+(?: \+\S+)?)", file.read_text())
        first, second = (
            subprocess.check_output(["sh", "-c", f"date() {{ echo {day}; }}; echo {name.strip('`')}"], text=True)
            for day in (1, 2)
        )
        assert first != second, file
