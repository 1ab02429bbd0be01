"""Volumes: what is mounted exists, pods stay where their volume is, and a node can still be drained."""

from collections.abc import Iterator

from tests.k8s.manifests import Object, Pod, of_kind, pods, selects

NAMES = {"configMap": ("ConfigMap", "name"), "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}
"""Kinds of volume that name another object: the object's kind, and the field that names it."""


def volumes(objects: list[Object]) -> Iterator[str]:
    """Every mounted volume exists, every volume is mounted, and every container has a place to write."""
    existing = {(kind, found["metadata"]["name"]) for kind, _ in NAMES.values() for found in of_kind(objects, kind)}
    for pod in pods(objects):
        declared = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        for name in mounted ^ set(declared):
            yield f"{pod.name}: volume {name} is {'mounted but not declared' if name in mounted else 'never mounted'}"
        for volume in declared.values():
            for field, (kind, key) in NAMES.items():
                if field in volume and (kind, volume[field][key]) not in existing:
                    yield f"{pod.name}: there is no {kind}/{volume[field][key]}"
        if _claims(pod) and pod.spec["securityContext"].get("fsGroup") != pod.spec["securityContext"]["runAsGroup"]:
            yield f"{pod.name}: fsGroup is not the group that runs, so a new volume belongs to root"
        scratch = {name for name, volume in declared.items() if "emptyDir" in volume}
        for container in pod.containers:
            mounts = [(mount["mountPath"], mount["name"]) for mount in container.get("volumeMounts", [])]
            if len(dict(mounts)) < len(mounts):
                yield f"{pod.name}: {container['name']}: two volumes at one path"
            if dict(mounts).get("/tmp") not in scratch:
                yield f"{pod.name}: {container['name']}: has no scratch volume at /tmp, and its root is read-only"
            # Nothing is published in corrections/, and the page's server must not see the rest of the volume.
            if {mount.get("subPath") for mount in container.get("volumeMounts", [])} - {None, "corrections"}:
                yield f"{pod.name}: {container['name']}: with subPath the rename that publishes a version is not seen"


def one_node(objects: list[Object]) -> Iterator[str]:
    """Pods that share a ReadWriteOnce volume must be kept on one node; pods that share another volume must not be."""
    for pod in pods(objects):
        modes = {mode for claim in _claims_of(objects, pod) for mode in claim["spec"]["accessModes"]}
        if modes and ("ReadWriteOnce" in modes) != _stays_with_its_like(pod):
            yield f"{pod.name}: its volumes are {sorted(modes)}, and it stays on one node: {_stays_with_its_like(pod)}"


def drains(objects: list[Object]) -> Iterator[str]:
    """A disruption budget over pods that must share a node keeps that node from being drained.

    The replacement has to run on the cordoned node, so it stays Pending, and the budget then refuses every other eviction.
    """
    for budget in of_kind(objects, "PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") == "100%":
            continue
        for pod in pods(objects):
            if selects(budget["spec"]["selector"], pod.labels) and _stays_with_its_like(pod):
                yield f"PodDisruptionBudget/{budget['metadata']['name']}: {pod.name} must share a node: no drain ends"


def _claims(pod: Pod) -> list[str]:
    volumes = pod.spec.get("volumes", [])
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def _claims_of(objects: list[Object], pod: Pod) -> list[Object]:
    return [c for c in of_kind(objects, "PersistentVolumeClaim") if c["metadata"]["name"] in _claims(pod)]


def _stays_with_its_like(pod: Pod) -> bool:
    """Whether a pod's affinity binds it to the node of pods that have its own labels."""
    terms = (
        pod.spec.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    )
    return any(
        term["topologyKey"] == "kubernetes.io/hostname" and selects(term["labelSelector"], pod.labels) for term in terms
    )
