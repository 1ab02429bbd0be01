"""Jobs and Deployments: when they are retried, when they are ready, what they request, and how they queue."""

from collections.abc import Iterator
from decimal import Decimal

from tests.k8s.manifests import Object, named, of_kind, pods

PROGRESS_DEADLINE_SECONDS = 600
"""Kubernetes' default for a Deployment."""


def jobs(objects: list[Object]) -> Iterator[str]:
    """Every Job ends at last, and its failure policy does what it says."""
    for pod in pods(of_kind(objects, "Job")):
        job = pod.owner["spec"]
        if pod.spec.get("restartPolicy") not in ("Never", "OnFailure"):
            yield f"{pod.name}: a Job's pods restart never or on failure"
        if "podFailurePolicy" in job:
            if pod.spec.get("restartPolicy") != "Never":
                yield f"{pod.name}: podFailurePolicy needs restartPolicy Never"
            if job.get("podReplacementPolicy") != "Failed":
                yield f"{pod.name}: podFailurePolicy needs podReplacementPolicy Failed"
        for rule in job.get("podFailurePolicy", {}).get("rules", []):
            codes = rule.get("onExitCodes", {"values": []})
            if codes.get("operator") == "In" and 0 in codes["values"]:
                yield f"{pod.name}: exit code 0 is no failure"
            if sorted(set(codes["values"])) != codes["values"]:
                yield f"{pod.name}: exit codes must be in order, each once: {codes['values']}"
            if job.get("backoffLimit") == 0 and rule["action"] == "Ignore":
                yield f"{pod.name}: backoffLimit 0 allows one attempt, but an ignored failure is tried again"
        if not {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= set(job):
            yield f"{pod.name}: is not bounded"


def probes(objects: list[Object]) -> Iterator[str]:
    """Every probe has one handler, at a port that a container opens; every Deployment says when it is ready."""
    for pod in pods(objects):
        for container in pod.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if kind not in container:
                    continue
                handlers = {"httpGet", "grpc", "exec", "tcpSocket"} & set(container[kind])
                if len(handlers) != 1:
                    yield f"{pod.name}: {kind} has {len(handlers)} handlers; expected one"
                for handler in handlers - {"exec"}:
                    if container[kind][handler]["port"] not in pod.ports:
                        yield f"{pod.name}: {kind} queries a port that no container opens"


def rollouts(objects: list[Object]) -> Iterator[str]:
    """A rollout is given at least the time that a pod's startup probe gives, else `rollout status` fails too early."""
    for pod in pods(of_kind(objects, "Deployment")):
        deadline = pod.owner["spec"].get("progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS)
        for container in pod.containers:
            probe = container.get("startupProbe", {})
            allowed = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
            if deadline <= allowed:
                yield f"{pod.name}: progressDeadlineSeconds is {deadline}, but starting may take {allowed} s"


def quantities(objects: list[Object]) -> Iterator[str]:
    """No request is above its limit, and a volume in memory leaves memory for the process."""
    for pod in pods(objects):
        for container in pod.containers:
            requests, limits = container["resources"].get("requests", {}), container["resources"].get("limits", {})
            for resource in set(requests) & set(limits):
                if amount(requests[resource]) > amount(limits[resource]):
                    yield f"{pod.name}: {container['name']}: requests more {resource} than its limit"
        memory = [
            amount(v["emptyDir"]["sizeLimit"]) for v in pod.spec["volumes"] if v.get("emptyDir", {}).get("medium")
        ]
        if memory and sum(memory) * 2 > amount(pod.spec["containers"][0]["resources"]["limits"]["memory"]):
            yield f"{pod.name}: a volume in memory takes more than half of the memory limit that it counts against"


def queues(objects: list[Object]) -> Iterator[str]:
    """A queued Job requests only resources that its queue lists, and leaves `suspend` to Kueue."""
    for job in of_kind(objects, "Job"):
        if not (queue := job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")):
            continue
        [pod] = pods([job])
        local = named(objects, "LocalQueue", queue)
        [group] = named(objects, "ClusterQueue", local["spec"]["clusterQueue"])["spec"]["resourceGroups"]
        wanted = {name for each in pod.containers for bounds in each["resources"].values() for name in bounds}
        for resource in wanted - set(group["coveredResources"]):
            yield f"{pod.name}: queue {queue} does not cover {resource}"
        for flavor in group["flavors"]:
            named(objects, "ResourceFlavor", flavor["name"])
            if [each["name"] for each in flavor["resources"]] != group["coveredResources"]:
                yield f"flavor {flavor['name']}: must list the covered resources, in their order"
        if "suspend" in job["spec"]:
            yield f"{pod.name}: Kueue suspends by itself; with suspend in the manifest every apply stops a running Job"


def amount(quantity: str | int) -> Decimal:
    """A Kubernetes quantity as a number."""
    text = str(quantity)
    for suffix, factor in {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": Decimal("0.001"), "k": 1000, "M": 10**6}.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)
