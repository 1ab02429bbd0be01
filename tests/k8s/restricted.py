"""The Pod Security Standard "restricted", and what this project asks of a pod beyond it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator

from tests.k8s.manifests import Object, Pod, pods

UID = 10001
VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def restricted(objects: list[Object]) -> Iterator[str]:
    """What the API server would refuse in a namespace that enforces "restricted"."""
    for pod in pods(objects):
        spec, context = pod.spec, pod.spec.get("securityContext", {})
        for field in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            if field in spec:
                yield f"{pod.name}: {field} is set"
        for volume in spec.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUME_TYPES:
                yield f"{pod.name}: volume {volume['name']} is of a kind that is not allowed: {sorted(volume)}"
        if context.get("sysctls"):
            yield f"{pod.name}: sysctls are set"
        for container in pod.containers:
            for problem in _container_problems({**context, **container.get("securityContext", {})}, container):
                yield f"{pod.name}: {container['name']}: {problem}"


def _container_problems(context: Object, container: Object) -> Iterator[str]:
    capabilities = context.get("capabilities", {})
    if context.get("privileged"):
        yield "is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds capabilities {capabilities['add']}"
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser") == 0:
        yield "runs as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if context.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "opens a port of the host"


def hardened(objects: list[Object]) -> Iterator[str]:
    """What the standard leaves open: one user for all, a root that nobody writes to, no token, bounded resources."""
    for pod in pods(objects):
        context = pod.spec["securityContext"]
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name}: mounts a service account's token"
        if (context.get("runAsUser"), context.get("runAsGroup")) != (UID, UID):
            yield f"{pod.name}: runs as {context.get('runAsUser')}, not as {UID}: one pod must read what another wrote"
        claims = [volume for volume in pod.spec.get("volumes", []) if "persistentVolumeClaim" in volume]
        if claims and context.get("fsGroup") != UID:
            yield f"{pod.name}: fsGroup is not {UID}, so a new volume belongs to root"
        for container in pod.containers:
            for problem in _own_problems(pod, container):
                yield f"{pod.name}: {container['name']}: {problem}"


def _own_problems(pod: Pod, container: Object) -> Iterator[str]:
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
        yield "has a writable root"
    scratch = {volume["name"] for volume in pod.spec.get("volumes", []) if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    if mounts.get("/tmp") not in scratch:
        yield "has no scratch volume at /tmp"
    resources = container.get("resources", {})
    for resource in ("cpu", "memory", "ephemeral-storage"):
        for bound in ("requests", "limits"):
            if resource not in resources.get(bound, {}):
                yield f"{bound} no {resource}"
    name, _, tag = container["image"].rpartition(":")
    if not name or "/" in tag or tag == "latest":
        yield f"image {container['image']} is not pinned"
