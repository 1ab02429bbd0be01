"""Every check of meaning is proven by the faults it is there for: one planted at a time in manifests that are sound."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s.manifests import Object, named, pods, render
from tests.k8s.meaning import CHECKS, problems

Damage = Callable[["Stack"], Any]


class Stack:
    """The fullest stack, with short ways to the places that get damaged."""

    def __init__(self) -> None:
        self.objects = render("everything")
        self.job = named(self.objects, "Job", "train")["spec"]
        self.serving = named(self.objects, "Deployment", "serving")["spec"]
        self.web = named(self.objects, "Deployment", "web")["spec"]["template"]
        self.claim = named(self.objects, "PersistentVolumeClaim", "artifacts")["spec"]
        self.training_pod, self.serving_pod = self.job["template"]["spec"], self.serving["template"]["spec"]
        self.trainer, self.server = self.training_pod["containers"][0], self.serving_pod["containers"][0]
        self.locked, self.context = self.trainer["securityContext"], self.training_pod["securityContext"]

    def spec(self, kind: str, name: str) -> Object:
        return named(self.objects, kind, name)["spec"]

    def remove(self, kind: str, name: str) -> None:
        self.objects.remove(named(self.objects, kind, name))

    def variable(self, name: str) -> Object:
        return next(variable for variable in self.trainer["env"] if variable["name"] == name)


def mount(name: str, path: str, **more: str) -> Object:
    return {"name": name, "mountPath": path, **more}


TOGETHER = {
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"mounts": "artifacts"}}}
        ]
    }
}

FAULTS: dict[str, tuple[str, str, Damage]] = {
    # what was planted: (the check that catches it, what it says, the planting)
    "an invented restart policy": (
        "enums", "restartPolicy is 'Sometimes'", lambda s: s.serving_pod.update(restartPolicy="Sometimes")),
    "an invented access mode": (
        "enums", "accessModes is 'WriteOnce'", lambda s: s.claim.update(accessModes=["WriteOnce"])),
    "an invented failure action": (
        "enums", "action is 'Fail'", lambda s: s.job["podFailurePolicy"]["rules"][0].update(action="Fail")),
    "an operator that exit codes do not have": (
        "enums", "operator is 'Equals'",
        lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(operator="Equals")),
    "a seccomp profile that does not exist": (
        "enums", "type is 'Default'", lambda s: s.context["seccompProfile"].update(type="Default")),
    "a failure policy with restarts in place": (
        "jobs", "needs restartPolicy Never", lambda s: s.training_pod.update(restartPolicy="OnFailure")),
    "a Job whose pods restart always": (
        "jobs", "restart never or on failure", lambda s: s.training_pod.update(restartPolicy="Always")),
    "a replacement that starts too early": (
        "jobs", "podReplacementPolicy Failed", lambda s: s.job.update(podReplacementPolicy="TerminatingOrFailed")),
    "success as a failure": (
        "jobs", "exit code 0", lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[0, 2])),
    "an exit code twice": (
        "jobs", "each once", lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[2, 2])),
    "a Job without an end": ("jobs", "is not bounded", lambda s: s.job.pop("activeDeadlineSeconds")),
    "Indexed without completions": ("workers", "completions is None", lambda s: s.job.pop("completions")),
    "workers that do not all run at once": (
        "workers", "all workers run at once", lambda s: s.job.update(parallelism=1)),
    "another number of workers in the environment": (
        "workers", "DIGITS_WORKERS is '3'", lambda s: s.variable("DIGITS_WORKERS").update(value="3")),
    "a success policy without indices": (
        "workers", "successPolicy needs", lambda s: s.job.pop("completionMode")),
    "a subdomain that is no Service": (
        "workers", "names no Service", lambda s: s.training_pod.update(subdomain="peers")),
    "a workers' Service that hides pods until they are ready": (
        "workers", "not ready", lambda s: s.spec("Service", "workers").pop("publishNotReadyAddresses")),
    "a workers' Service that selects others": (
        "workers", "does not select the workers",
        lambda s: s.spec("Service", "workers").update(selector={"app.kubernetes.io/component": "web"})),
    "a workers' port that nobody opens": (
        "workers", "port 2223", lambda s: s.variable("DIGITS_WORKER_PORT").update(value="2223")),
    "a Service for nobody": (
        "selectors", "Service/serving: selects no pod",
        lambda s: s.spec("Service", "serving")["selector"].update({"app.kubernetes.io/component": "server"})),
    "a Deployment that is not its pods'": (
        "selectors", "its own pods", lambda s: s.serving["template"]["metadata"]["labels"].pop("app.kubernetes.io/name")),
    "a disruption budget for nobody": (
        "selectors", "PodDisruptionBudget/serving",
        lambda s: s.spec("PodDisruptionBudget", "serving")["selector"]["matchLabels"].update(a="b")),
    "a spread over pods that do not exist": (
        "selectors", "labelSelector matches no pod",
        lambda s: s.serving_pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(a="b")),
    "a monitor of no Service": (
        "selectors", "ServiceMonitor/serving",
        lambda s: s.spec("ServiceMonitor", "serving")["selector"]["matchLabels"].update(a="b")),
    "an autoscaler of nothing": (
        "selectors", "scales nothing",
        lambda s: s.spec("HorizontalPodAutoscaler", "serving")["scaleTargetRef"].update(name="server")),
    "a number of replicas beside an autoscaler": (
        "selectors", "has replicas", lambda s: s.serving.update(replicas=2)),
    "a mount of no volume": (
        "volumes", "mounted but not declared", lambda s: s.trainer["volumeMounts"].append(mount("cache", "/cache"))),
    "a volume that nobody mounts": (
        "volumes", "never mounted", lambda s: s.training_pod["volumes"].append({"name": "x", "emptyDir": {}})),
    "a ConfigMap that is not there": (
        "volumes", "no ConfigMap/serving-conf",
        lambda s: s.serving_pod["volumes"][1]["configMap"].update(name="serving-conf")),
    "a claim that is not there": (
        "volumes", "no PersistentVolumeClaim/artifacts", lambda s: s.remove("PersistentVolumeClaim", "artifacts")),
    "two volumes at one path": (
        "volumes", "at one path", lambda s: s.trainer["volumeMounts"].append(mount("tmp", "/artifacts"))),
    "a part of the volume only": (
        "volumes", "subPath", lambda s: s.server["volumeMounts"][0].update(subPath="models")),
    "a one-node volume on many nodes": (
        "one_node", "['ReadWriteOnce']", lambda s: s.claim.update(accessModes=["ReadWriteOnce"])),
    "a shared volume kept on one node": (
        "one_node", "['ReadWriteMany']", lambda s: s.serving_pod.update(affinity=TOGETHER)),
    "a Service's port that no container opens": (
        "ports", "Service/serving", lambda s: s.spec("Service", "serving")["ports"][1].update(targetPort=8502)),
    "a policy for a port that no container opens": (
        "ports", "NetworkPolicy/serving",
        lambda s: s.spec("NetworkPolicy", "serving")["ingress"][0]["ports"].append({"port": 9000})),
    "a monitor of a port that no Service has": (
        "ports", "'metrics'", lambda s: s.spec("ServiceMonitor", "serving")["endpoints"][0].update(port="metrics")),
    "two handlers in one probe": (
        "probes", "2 handlers", lambda s: s.server["readinessProbe"].update(grpc={"port": 8500})),
    "a probe of a closed port": (
        "probes", "no container opens", lambda s: s.server["livenessProbe"]["grpc"].update(port=8600)),
    "a server that is ready whatever happens": (
        "probes", "no readinessProbe", lambda s: s.server.pop("readinessProbe")),
    "a variable used before it is defined": (
        "variables", "'$(RUN)'", lambda s: s.trainer["env"].insert(0, {"name": "FIRST", "value": "$(RUN)"})),
    "an argument with an unknown variable": (
        "variables", "$(CORES)", lambda s: s.server["args"].append("--num_load_threads=$(CORES)")),
    "a question to nobody": (
        "targets", "no such Service", lambda s: s.remove("Service", "serving-headless")),
    "a question at the wrong port": (
        "targets", "no such port", lambda s: s.spec("Service", "serving-headless")["ports"][0].update(port=8600)),
    "taking turns behind one address": (
        "targets", "only a headless Service", lambda s: s.spec("Service", "serving-headless").pop("clusterIP")),
    "a client that the policies keep out": (
        "targets", "do not let it through", lambda s: s.web["metadata"]["labels"].pop("asks")),
    "a request above its limit": (
        "quantities", "requests more memory", lambda s: s.trainer["resources"]["requests"].update(memory="32Gi")),
    "shared memory as large as the limit": (
        "quantities", "half of the memory limit",
        lambda s: s.training_pod["volumes"][0]["emptyDir"].update(sizeLimit="16Gi")),
    "a resource that the queue does not cover": (
        "queues", "does not cover nvidia.com/gpu",
        lambda s: s.spec("ClusterQueue", "digits")["resourceGroups"][0]["coveredResources"].pop()),
    "a queued Job that starts by itself": ("queues", "not suspended", lambda s: s.job.pop("suspend")),
    "a privileged container": ("restricted", "is privileged", lambda s: s.locked.update(privileged=True)),
    "a way up": ("restricted", "allowPrivilegeEscalation", lambda s: s.locked.pop("allowPrivilegeEscalation")),
    "capabilities kept": ("restricted", "does not drop ALL", lambda s: s.locked.pop("capabilities")),
    "a capability added": ("restricted", "adds", lambda s: s.locked["capabilities"].update(add=["SYS_ADMIN"])),
    "a user who may be root": ("restricted", "runAsNonRoot", lambda s: s.context.pop("runAsNonRoot")),
    "root": ("restricted", "runs as root", lambda s: s.locked.update(runAsUser=0)),
    "no seccomp profile": ("restricted", "seccomp", lambda s: s.context.pop("seccompProfile")),
    "an unmasked /proc": ("restricted", "procMount", lambda s: s.locked.update(procMount="Unmasked")),
    "the host's network": ("restricted", "hostNetwork", lambda s: s.training_pod.update(hostNetwork=True)),
    "the host's folders": (
        "restricted", "not allowed", lambda s: s.training_pod["volumes"][1].update(hostPath={"path": "/"})),
    "the host's port": ("restricted", "port of the host", lambda s: s.trainer["ports"][0].update(hostPort=2222)),
    "kernel settings": ("restricted", "sysctls", lambda s: s.context.update(sysctls=[{"name": "a", "value": "b"}])),
    "another user": ("hardened", "runs as 1000", lambda s: s.context.update(runAsUser=1000)),
    "a volume that belongs to root": ("hardened", "fsGroup", lambda s: s.context.pop("fsGroup")),
    "a token": ("hardened", "token", lambda s: s.training_pod.pop("automountServiceAccountToken")),
    "a writable root": ("hardened", "writable root", lambda s: s.locked.pop("readOnlyRootFilesystem")),
    "nowhere to write": (
        "hardened", "no scratch volume", lambda s: s.server["volumeMounts"].pop()),
    "memory without a limit": (
        "hardened", "limits no memory", lambda s: s.trainer["resources"]["limits"].pop("memory")),
    "an image that moves": ("hardened", "not pinned", lambda s: s.server.update(image="tensorflow/serving:latest")),
    "an image without a tag": (
        "hardened", "not pinned", lambda s: s.server.update(image="host:5000/tensorflow/serving")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_the_check_that_is_there_for_it(fault: str) -> None:
    name, message, plant = FAULTS[fault]
    [check] = [check for check in CHECKS if check.__name__ == name]
    stack = Stack()
    assert list(check(stack.objects)) == []
    plant(stack)
    assert [problem for problem in check(stack.objects) if message in problem]


def test_every_check_has_a_fault() -> None:
    assert {name for name, _, _ in FAULTS.values()} == {check.__name__ for check in CHECKS}


def test_a_patch_that_matches_nothing_is_noticed() -> None:
    """kustomize ignores it silently: what the components patch is therefore looked for in what is rendered."""
    assert problems(render("everything")) == []
    trainers = {
        container["image"]
        for pod in pods(render("base+gpu"))
        for container in pod.containers
        if "gpu" in container["image"]
    }
    assert trainers == {"digits-trainer-gpu:0.1.0"}
