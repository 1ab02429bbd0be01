"""Every check finds the mistakes that it exists for: one mistake at a time is planted in correct manifests."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s.checks import CHECKS
from tests.k8s.manifests import Object, named, pods, render

Plant = Callable[["Stack"], Any]


class Stack:
    """The largest stack, with short names for the places where mistakes are planted."""

    def __init__(self) -> None:
        self.objects = render("everything")
        self.job = named(self.objects, "Job", "train")["spec"]
        self.serving = named(self.objects, "Deployment", "serving")["spec"]
        self.web = named(self.objects, "Deployment", "web")["spec"]["template"]
        self.claim = named(self.objects, "PersistentVolumeClaim", "artifacts")["spec"]
        self.training_pod, self.serving_pod = self.job["template"]["spec"], self.serving["template"]["spec"]
        self.trainer, self.server = self.training_pod["containers"][0], self.serving_pod["containers"][0]
        self.context = self.training_pod["securityContext"]

    def spec(self, kind: str, name: str) -> Object:
        return named(self.objects, kind, name)["spec"]

    def remove(self, kind: str, name: str) -> None:
        self.objects.remove(named(self.objects, kind, name))

    def variable(self, name: str) -> Object:
        return next(variable for variable in self.trainer["env"] if variable["name"] == name)


def mount(name: str, path: str, **more: str) -> Object:
    return {"name": name, "mountPath": path, **more}


ONE_NODE = {
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"mounts": "artifacts"}}}
        ]
    }
}

MISTAKES: dict[str, tuple[str, str, Plant]] = {
    # mistake: (the check that finds it, a part of what the check says, how to plant it)
    "an unknown restart policy": (
        "enums", "restartPolicy is 'Sometimes'", lambda s: s.serving_pod.update(restartPolicy="Sometimes")),
    "an unknown access mode": (
        "enums", "accessModes is 'WriteOnce'", lambda s: s.claim.update(accessModes=["WriteOnce"])),
    "an unknown failure action": (
        "enums", "action is 'Fail'", lambda s: s.job["podFailurePolicy"]["rules"][0].update(action="Fail")),
    "an unknown operator for exit codes": (
        "enums", "operator is 'Equals'",
        lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(operator="Equals")),
    "an unknown seccomp profile": (
        "enums", "type is 'Default'", lambda s: s.context["seccompProfile"].update(type="Default")),
    "a quantity that is a number": (
        "settled", "expected the text '1'", lambda s: s.trainer["resources"]["limits"].update({"nvidia.com/gpu": 1})),
    "a quota that is a number": (
        "settled", "expected the text '4'",
        lambda s: s.spec("ClusterQueue", "digits")["resourceGroups"][0]["flavors"][0]["resources"][3].update(
            nominalQuota=4)),
    "a volume size that is a number": (
        "settled", "expected the text '1'", lambda s: s.training_pod["volumes"][0]["emptyDir"].update(sizeLimit=1)),
    "a strategy without a type": ("settled", "strategy has no type", lambda s: s.serving["strategy"].pop("type")),
    "a policy's port without a protocol": (
        "settled", "NetworkPolicy/training: a port has no protocol",
        lambda s: s.spec("NetworkPolicy", "training")["egress"][1]["ports"][0].pop("protocol")),
    "a failure policy with container restarts": (
        "jobs", "needs restartPolicy Never", lambda s: s.training_pod.update(restartPolicy="OnFailure")),
    "a Job whose pods always restart": (
        "jobs", "restart never or on failure", lambda s: s.training_pod.update(restartPolicy="Always")),
    "a replacement that starts before the failed pod has ended": (
        "jobs", "podReplacementPolicy Failed", lambda s: s.job.update(podReplacementPolicy="TerminatingOrFailed")),
    "exit code 0 in a failure policy": (
        "jobs", "exit code 0", lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[0, 2])),
    "the same exit code twice": (
        "jobs", "each once", lambda s: s.job["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[2, 2])),
    "an ignored failure in a Job that must run once": (
        "jobs", "an ignored failure is tried again", lambda s: s.job.update(backoffLimit=0)),
    "a Job without a deadline": ("jobs", "is not bounded", lambda s: s.job.pop("activeDeadlineSeconds")),
    "an Indexed Job without completions": ("workers", "completions is None", lambda s: s.job.pop("completions")),
    "workers that do not all run at once": (
        "workers", "all workers run at once", lambda s: s.job.update(parallelism=1)),
    "another number of workers in the environment": (
        "workers", "DIGITS_WORKERS is '3'", lambda s: s.variable("DIGITS_WORKERS").update(value="3")),
    "a success policy without indices": (
        "workers", "successPolicy needs", lambda s: s.job.pop("completionMode")),
    "a subdomain without a Service": (
        "workers", "names no Service", lambda s: s.training_pod.update(subdomain="peers")),
    "a workers' Service that omits pods that are not ready": (
        "workers", "not ready", lambda s: s.spec("Service", "workers").pop("publishNotReadyAddresses")),
    "a workers' Service that selects other pods": (
        "workers", "does not select the workers",
        lambda s: s.spec("Service", "workers").update(selector={"app.kubernetes.io/component": "web"})),
    "a workers' port that no container opens": (
        "workers", "port 2223", lambda s: s.variable("DIGITS_WORKER_PORT").update(value="2223")),
    "a Service that selects no pod": (
        "selectors", "Service/serving: selects no pod",
        lambda s: s.spec("Service", "serving")["selector"].update({"app.kubernetes.io/component": "server"})),
    "a Deployment that does not select its own pods": (
        "selectors", "its own pods", lambda s: s.serving["template"]["metadata"]["labels"].pop("app.kubernetes.io/name")),
    "a disruption budget that selects no pod": (
        "selectors", "PodDisruptionBudget/serving",
        lambda s: s.spec("PodDisruptionBudget", "serving")["selector"]["matchLabels"].update(a="b")),
    "a spread constraint that matches no pod": (
        "selectors", "labelSelector matches no pod",
        lambda s: s.serving_pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(a="b")),
    "a monitor that selects no Service": (
        "selectors", "ServiceMonitor/serving",
        lambda s: s.spec("ServiceMonitor", "serving")["selector"]["matchLabels"].update(a="b")),
    "an autoscaler without a target": (
        "selectors", "target does not exist",
        lambda s: s.spec("HorizontalPodAutoscaler", "serving")["scaleTargetRef"].update(name="server")),
    "a number of replicas beside an autoscaler": (
        "selectors", "has replicas", lambda s: s.serving.update(replicas=2)),
    "a mount without a volume": (
        "volumes", "mounted but not declared", lambda s: s.trainer["volumeMounts"].append(mount("cache", "/cache"))),
    "a volume that is never mounted": (
        "volumes", "never mounted", lambda s: s.training_pod["volumes"].append({"name": "x", "emptyDir": {}})),
    "a ConfigMap that does not exist": (
        "volumes", "no ConfigMap/serving-conf",
        lambda s: s.serving_pod["volumes"][1]["configMap"].update(name="serving-conf")),
    "a claim that does not exist": (
        "volumes", "no PersistentVolumeClaim/artifacts", lambda s: s.remove("PersistentVolumeClaim", "artifacts")),
    "two volumes at one path": (
        "volumes", "at one path", lambda s: s.trainer["volumeMounts"].append(mount("tmp", "/artifacts"))),
    "a mount of a part of the volume": (
        "volumes", "subPath", lambda s: s.server["volumeMounts"][0].update(subPath="models")),
    "a volume that belongs to root": ("volumes", "fsGroup", lambda s: s.context.pop("fsGroup")),
    "a container without a place to write": ("volumes", "no scratch volume", lambda s: s.server["volumeMounts"].pop()),
    "a one-node volume for pods on many nodes": (
        "one_node", "['ReadWriteOnce']", lambda s: s.claim.update(accessModes=["ReadWriteOnce"])),
    "a shared volume for pods that stay on one node": (
        "one_node", "['ReadWriteMany']", lambda s: s.serving_pod.update(affinity=ONE_NODE)),
    "a disruption budget for pods that share a node": (
        "drains", "no drain ends", lambda s: s.serving_pod.update(affinity=ONE_NODE)),
    "a Service's port that no container opens": (
        "ports", "Service/serving", lambda s: s.spec("Service", "serving")["ports"][1].update(targetPort=8502)),
    "a policy for a port that no container opens": (
        "ports", "NetworkPolicy/serving",
        lambda s: s.spec("NetworkPolicy", "serving")["ingress"][0]["ports"].append({"port": 9000})),
    "a monitor of a port that no Service has": (
        "ports", "'metrics'", lambda s: s.spec("ServiceMonitor", "serving")["endpoints"][0].update(port="metrics")),
    "two handlers in one probe": (
        "probes", "2 handlers", lambda s: s.server["readinessProbe"].update(grpc={"port": 8500})),
    "a probe of a port that no container opens": (
        "probes", "no container opens", lambda s: s.server["livenessProbe"]["grpc"].update(port=8600)),
    "a rollout deadline below the startup time": (
        "rollouts", "starting may take 3600 s", lambda s: s.serving.pop("progressDeadlineSeconds")),
    "a variable that is used before it is defined": (
        "variables", "'$(RUN)'", lambda s: s.trainer["env"].insert(0, {"name": "FIRST", "value": "$(RUN)"})),
    "an argument with an unknown variable": (
        "variables", "$(CORES)", lambda s: s.server["args"].append("--num_load_threads=$(CORES)")),
    "a client of a Service that does not exist": (
        "targets", "no such Service", lambda s: s.remove("Service", "serving-headless")),
    "a client of a port that the Service lacks": (
        "targets", "no such port", lambda s: s.spec("Service", "serving-headless")["ports"][0].update(port=8600)),
    "client-side load balancing over a Service with one address": (
        "targets", "only a headless Service", lambda s: s.spec("Service", "serving-headless").pop("clusterIP")),
    "a client that the network policies reject": (
        "targets", "policies reject it", lambda s: s.web["metadata"]["labels"].pop("digits-client")),
    "a request above its limit": (
        "quantities", "requests more memory", lambda s: s.trainer["resources"]["requests"].update(memory="32Gi")),
    "shared memory as large as the limit": (
        "quantities", "half of the memory limit",
        lambda s: s.training_pod["volumes"][0]["emptyDir"].update(sizeLimit="16Gi")),
    "a resource that the queue does not cover": (
        "queues", "does not cover nvidia.com/gpu",
        lambda s: s.spec("ClusterQueue", "digits")["resourceGroups"][0]["coveredResources"].pop()),
    "a queued Job that every apply suspends": ("queues", "every apply stops", lambda s: s.job.update(suspend=True)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found_by_its_check(mistake: str) -> None:
    name, message, plant = MISTAKES[mistake]
    [check] = [check for check in CHECKS if check.__name__ == name]
    stack = Stack()
    assert list(check(stack.objects)) == []
    plant(stack)
    assert [problem for problem in check(stack.objects) if message in problem]


def test_every_check_has_a_mistake_to_find() -> None:
    assert {name for name, _, _ in MISTAKES.values()} == {check.__name__ for check in CHECKS}


def test_the_gpu_component_changes_every_training_image() -> None:
    """kustomize ignores a patch whose target matches nothing, so the rendered values are tested."""
    images = {container["image"] for pod in pods(render("base+gpu")) for container in pod.containers}
    assert {image for image in images if "trainer" in image} == {"digits-trainer:0.1.0", "digits-trainer-gpu:0.1.0"}
    [training] = pods([named(render("base+gpu"), "Job", "train")])
    assert {container["image"] for container in training.containers} == {"digits-trainer-gpu:0.1.0"}
