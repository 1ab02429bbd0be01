"""What a schema cannot see: each function yields the sentences that are wrong about a set of manifests.

`CHECKS` is applied to every stack that is rendered; tests/k8s/test_meaning.py plants one fault at a time to see it caught.
"""

from collections.abc import Iterator
from decimal import Decimal

from tests.k8s.manifests import Object, arguments, environment, named, of_kind, pods, selects, walk
from tests.k8s.restricted import hardened, restricted

ENUMS = {
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "action": {"FailJob", "FailIndex", "Ignore", "Count"},
    "completionMode": {"Indexed", "NonIndexed"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "medium": {"", "Memory"},
    "onExitCodes.operator": {"In", "NotIn"},
    "onPodConditions.type": {"DisruptionTarget", "PodReadyToStartContainers", "Ready"},
    "podReplacementPolicy": {"Failed", "TerminatingOrFailed"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "seccompProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "target.type": {"Utilization", "Value", "AverageValue"},
    "tolerations.operator": {"Exists", "Equal"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
}
"""Values that the API server accepts, by field, or by the field above and the field."""


def enums(objects: list[Object]) -> Iterator[str]:
    for found in objects:
        for parent, key, value in walk(found):
            allowed = ENUMS.get(f"{parent}.{key}") or ENUMS.get(key)
            if allowed and isinstance(value, str) and value not in allowed:
                yield f"{found['kind']}/{found['metadata']['name']}: {key} is {value!r}; expected one of {sorted(allowed)}"


def jobs(objects: list[Object]) -> Iterator[str]:
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
        if not {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= set(job):
            yield f"{pod.name}: is not bounded"


def workers(objects: list[Object]) -> Iterator[str]:
    """An Indexed Job: its numbers agree, and every worker has the name that the others call it by."""
    for pod in pods(of_kind(objects, "Job")):
        job = pod.owner["spec"]
        if job.get("completionMode") != "Indexed":
            if "successPolicy" in job:
                yield f"{pod.name}: successPolicy needs completionMode Indexed"
            continue
        count = job.get("completions")
        if not count or job.get("parallelism") != count:
            yield f"{pod.name}: completions is {count} and parallelism {job.get('parallelism')}: all workers run at once"
        variables = environment(pod, pod.spec["containers"][0])
        expected = {
            "DIGITS_WORKERS": str(count),
            "DIGITS_JOB": pod.owner["metadata"]["name"],
            "DIGITS_SERVICE": pod.spec.get("subdomain", ""),
        }
        for name, value in expected.items():
            if variables.get(name) != value:
                yield f"{pod.name}: {name} is {variables.get(name)!r}; expected {value!r}"
        port = int(variables.get("DIGITS_WORKER_PORT", 2222))
        if port not in pod.ports:
            yield f"{pod.name}: no container opens the workers' port {port}"
        try:
            service = named(objects, "Service", pod.spec.get("subdomain", ""))["spec"]
        except KeyError as missing:
            yield f"{pod.name}: subdomain names no Service: {missing}"
            continue
        if service.get("clusterIP") != "None" or service.get("publishNotReadyAddresses") is not True:
            yield f"{pod.name}: the workers' Service must be headless and publish pods that are not ready"
        if not selects(service["selector"], pod.labels):
            yield f"{pod.name}: the workers' Service does not select the workers"
        if port not in [entry["port"] for entry in service["ports"]]:
            yield f"{pod.name}: the workers' Service has no port {port}"


def selectors(objects: list[Object]) -> Iterator[str]:
    labels = [pod.labels for pod in pods(objects)]
    for found in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = found["spec"].get("podSelector", found["spec"].get("selector"))
        if not any(selects(selector, each) for each in labels):
            # The policies are one component for all stacks, and a stack need not have every client.
            if found["kind"] == "NetworkPolicy" and found["metadata"]["name"] == "asks-serving":
                continue
            yield f"{found['kind']}/{found['metadata']['name']}: selects no pod"
    for pod in pods(of_kind(objects, "Deployment")):
        if not selects(pod.owner["spec"]["selector"], pod.labels):
            yield f"{pod.name}: does not select its own pods"
    for pod in pods(objects):
        for _, key, value in walk(pod.spec):
            if key == "labelSelector" and not any(selects(value, each) for each in labels):
                yield f"{pod.name}: a labelSelector matches no pod"
    for monitor in of_kind(objects, "ServiceMonitor"):
        services = of_kind(objects, "Service")
        if not any(selects(monitor["spec"]["selector"], each["metadata"]["labels"]) for each in services):
            yield f"ServiceMonitor/{monitor['metadata']['name']}: selects no Service"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        try:
            deployment = named(objects, target["kind"], target["name"])
        except KeyError as missing:
            yield f"HorizontalPodAutoscaler: scales nothing: {missing}"
            continue
        if "replicas" in deployment["spec"]:
            yield f"HorizontalPodAutoscaler: {target['name']} has replicas, which every apply would reset"


def volumes(objects: list[Object]) -> Iterator[str]:
    """Whatever is mounted is there, and whatever is there is mounted."""
    held = {
        (kind, found["metadata"]["name"])
        for kind in ("ConfigMap", "PersistentVolumeClaim", "Secret")
        for found in of_kind(objects, kind)
    }
    for pod in pods(objects):
        declared = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        for name in mounted ^ set(declared):
            yield f"{pod.name}: volume {name} is {'mounted but not declared' if name in mounted else 'never mounted'}"
        for volume in declared.values():
            for field, kind, key in (
                ("configMap", "ConfigMap", "name"),
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
                ("secret", "Secret", "secretName"),
            ):
                if field in volume and (kind, volume[field][key]) not in held:
                    yield f"{pod.name}: there is no {kind}/{volume[field][key]}"
        for container in pod.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(paths)) < len(paths):
                yield f"{pod.name}: {container['name']}: two volumes at one path"
            if any("subPath" in mount for mount in container.get("volumeMounts", [])):
                yield f"{pod.name}: {container['name']}: with subPath the rename that publishes a version is not seen"


def one_node(objects: list[Object]) -> Iterator[str]:
    """A ReadWriteOnce volume is mounted on one node only, so its pods must be kept together; others must not be."""
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        once = claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        for pod in pods(objects):
            name = claim["metadata"]["name"]
            if not any(
                v.get("persistentVolumeClaim", {}).get("claimName") == name for v in pod.spec.get("volumes", [])
            ):
                continue
            affinity = pod.spec.get("affinity", {}).get("podAffinity", {})
            together = [
                term
                for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
                if term["topologyKey"] == "kubernetes.io/hostname" and selects(term["labelSelector"], pod.labels)
            ]
            if once != bool(together):
                yield f"{pod.name}: volume {name} is {claim['spec']['accessModes']}, one node for all: {bool(together)}"


def ports(objects: list[Object]) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        for pod in pods(objects):
            if selects(service["spec"]["selector"], pod.labels):
                for port in service["spec"]["ports"]:
                    if port.get("targetPort", port["port"]) not in pod.ports:
                        yield f"Service/{service['metadata']['name']}: no container of {pod.name} opens {port}"
    for policy in of_kind(objects, "NetworkPolicy"):
        for pod in pods(objects):
            opened = [entry["port"] for rule in policy["spec"].get("ingress", []) for entry in rule.get("ports", [])]
            if selects(policy["spec"]["podSelector"], pod.labels):
                for port in set(opened) - set(pod.ports):
                    yield f"NetworkPolicy/{policy['metadata']['name']}: no container of {pod.name} opens {port}"
    for monitor in of_kind(objects, "ServiceMonitor"):
        matching = [
            service
            for service in of_kind(objects, "Service")
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        names = {port["name"] for service in matching for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in names:
                yield f"ServiceMonitor/{monitor['metadata']['name']}: no Service has a port {endpoint['port']!r}"


def probes(objects: list[Object]) -> Iterator[str]:
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
                        yield f"{pod.name}: {kind} asks a port that no container opens"
            if pod.owner["kind"] == "Deployment" and "readinessProbe" not in container:
                yield f"{pod.name}: {container['name']} has no readinessProbe"


def variables(objects: list[Object]) -> Iterator[str]:
    """A `$(NAME)` that is not defined, or only further down, is passed on as it stands."""
    for pod in pods(objects):
        for container in pod.containers:
            for text in (*arguments(pod, container), *environment(pod, container).values()):
                if "$(" in text:
                    yield f"{pod.name}: {container['name']}: {text!r} refers to what is not defined before it"


def targets(objects: list[Object]) -> Iterator[str]:
    """Whoever asks the model server names a Service with that port, and is let in."""
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        for container in pod.containers:
            for argument in arguments(pod, container):
                if not argument.startswith("--target="):
                    continue
                address = argument.removeprefix("--target=")
                host, _, port = address.removeprefix("dns:///").partition(":")
                try:
                    service = named(objects, "Service", host)["spec"]
                except KeyError:
                    yield f"{pod.name}: {argument}: there is no such Service"
                    continue
                if int(port) not in [entry["port"] for entry in service["ports"]]:
                    yield f"{pod.name}: {argument}: the Service has no such port"
                if address.startswith("dns:///") and service.get("clusterIP") != "None":
                    yield f"{pod.name}: {argument}: only a headless Service lists its pods"
                if policies and pod.labels.get("asks") != "serving":
                    yield f"{pod.name}: {argument}: the network policies do not let it through"


def quantities(objects: list[Object]) -> Iterator[str]:
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
    """Kueue admits no Job that requests a resource which its queue does not list."""
    for job in of_kind(objects, "Job"):
        if queue := job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name"):
            local = named(objects, "LocalQueue", queue)
            cluster = named(objects, "ClusterQueue", local["spec"]["clusterQueue"])
            [group] = cluster["spec"]["resourceGroups"]
            [pod] = pods([job])
            wanted = {
                name for container in pod.containers for bounds in container["resources"].values() for name in bounds
            }
            for resource in wanted - set(group["coveredResources"]):
                yield f"{pod.name}: queue {queue} does not cover {resource}"
            for flavor in group["flavors"]:
                named(objects, "ResourceFlavor", flavor["name"])
                if [each["name"] for each in flavor["resources"]] != group["coveredResources"]:
                    yield f"flavor {flavor['name']}: must list the covered resources, in their order"
            if job["spec"].get("suspend") is not True:
                yield f"{pod.name}: is queued but not suspended"


def amount(quantity: str | int) -> Decimal:
    """A Kubernetes quantity as a number."""
    text = str(quantity)
    for suffix, factor in {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": Decimal("0.001"), "k": 1000, "M": 10**6}.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


CHECKS = (
    enums, jobs, workers, selectors, volumes, one_node, ports, probes, variables, targets, quantities, queues,
    restricted, hardened,
)  # fmt: skip


def problems(objects: list[Object]) -> list[str]:
    return [problem for check in CHECKS for problem in check(objects)]
