"""Render the manifests, and find in them what every test needs: pods, names, and the arguments that a container gets."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
K8S = (REPOSITORY / "k8s").resolve()

Object = dict[str, Any]

COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
BESIDE: dict[str, tuple[Any, ...]] = {
    "another-run": (("overlays/local", "overlays/another-run"),),
    "rollback": (("overlays/local", "overlays/rollback"),),
    "gpu-single-node+rollback": (("overlays/gpu-single-node", "overlays/rollback"),),
    "copy-to-bucket": (("overlays/local", "overlays/copy-to-bucket"), ("bucket-models",), (), "digits"),
}
"""These overlays bring a Job only, and run beside another overlay."""

STACKS: dict[str, tuple[Any, ...]] = {
    "base": (("base",), ()),
    **{f"base+{name}": (("base",), (name,)) for name in COMPONENTS},
    **{path.name: ((f"overlays/{path.name}",), ()) for path in sorted((K8S / "overlays").iterdir())},
    **BESIDE,
    "base+web+learn": (("base",), ("web", "learn")),
    "gpu-single-node+learn": (("overlays/gpu-single-node",), ("learn",)),
    "base+web+learn+rwx-storage": (("base",), ("web", "learn", "rwx-storage")),
    "base+rwx-storage+bucket-models": (("base",), ("rwx-storage", "bucket-models")),
    "base+bucket-models+rwx-storage": (("base",), ("bucket-models", "rwx-storage")),
    "gpu-multi-worker+bucket-models": (("overlays/gpu-multi-worker",), ("bucket-models",)),
    "base+kueue": (("base", "components/kueue/quota"), ("kueue",)),
    "everything": (("overlays/gpu-multi-worker", "components/kueue/quota"), ("kueue", "prometheus")),
}
"""The stacks that the tests render: name -> the arguments of `kustomize`."""


def kustomize(
    resources: tuple[str, ...],
    components: tuple[str, ...] = (),
    patches: tuple[Object, ...] = (),
    namespace: str = "",
) -> str:
    """Render folders under k8s/ together.

    Args:
        resources: folders with a kustomization.
        components: names of folders under components/.
        patches: in the form of a kustomization's `patches`.
        namespace: set on every object, if given.

    Raises:
        AssertionError: kustomize rejects them.
    """
    with tempfile.TemporaryDirectory() as folder:
        k8s = os.path.relpath(K8S, Path(folder).resolve())  # kustomize rejects absolute paths
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{k8s}/{path}" for path in resources],
            "components": [f"{k8s}/components/{name}" for name in components],
            "patches": list(patches),
            **({"namespace": namespace} if namespace else {}),
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _rendered(stack: str) -> str:
    return kustomize(*STACKS[stack])


def parse(text: str) -> list[Object]:
    """The objects in rendered manifests."""
    # The parser written in C is ten times faster, and the tests parse hundreds of stacks.
    return [found for found in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if found]


def render(stack: str) -> list[Object]:
    """The objects of a stack, as `kubectl apply` would send them. Every call gives new ones, which may be changed."""
    return parse(_rendered(stack))


@dataclass(frozen=True)
class Pod:
    """The pod that a Job, a CronJob or a Deployment makes."""

    owner: Object
    spec: Object
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """Kind and name of the owner."""
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def containers(self) -> list[Object]:
        """Init containers first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str | int, int]:
        """Every port that a container opens, by name and by number."""
        opened = [port for container in self.containers for port in container.get("ports", [])]
        return {
            key: port["containerPort"] for port in opened for key in (port.get("name"), port["containerPort"]) if key
        }


def pods(objects: list[Object]) -> list[Pod]:
    """The pods of all Deployments, Jobs and CronJobs."""
    specs = [
        (found, found["spec"].get("jobTemplate", found)["spec"])
        for found in objects
        if found["kind"] in ("Deployment", "Job", "CronJob")
    ]
    templates = [(found, spec["template"]) for found, spec in specs]
    return [Pod(owner, template["spec"], template["metadata"].get("labels", {})) for owner, template in templates]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [found for found in objects if found["kind"] in kinds]


def different(objects: Iterable[Object]) -> list[Object]:
    """Without repetitions: most objects are the same in many stacks."""
    return list({json.dumps(found, sort_keys=True): found for found in objects}.values())


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name.

    Raises:
        KeyError: there is none.
    """
    for found in of_kind(objects, kind):
        if found["metadata"]["name"] == name:
            return found
    raise KeyError(f"{kind}/{name}")


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector, or a Service's plain map, matches."""
    wanted = selector.get("matchLabels", {}) if {"matchLabels", "matchExpressions"} & set(selector) else selector
    assert "matchExpressions" not in selector, "this function does not know expressions yet"
    return all(labels.get(key) == value for key, value in wanted.items())


def walk(value: Any, parent: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value in a tree as (key above, key, value). The items of a list have the list's key."""
    yield parent, key, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from walk(child, key, name)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child, parent, key)


def environment(pod: Pod, container: Object) -> dict[str, str]:
    """The container's environment. As in Kubernetes, `$(NAME)` refers only to variables that stand before it."""
    values: dict[str, str] = {}
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "resourceFieldRef" in source:
            limits, resource = source["resourceFieldRef"]["resource"].split(".", 1)
            values[variable["name"]] = str(container["resources"][limits][resource])
        elif "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
            values[variable["name"]] = pod.owner["metadata"]["name"]
        else:
            values[variable["name"]] = expand(variable["value"], values)
    return values


def expand(text: str, values: dict[str, str]) -> str:
    """Replace `$(NAME)` where NAME is known and leave it where not, as Kubernetes does."""
    return re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: values.get(match[1], match[0]), text)


def arguments(pod: Pod, container: Object) -> list[str]:
    """The container's arguments, with its environment filled in."""
    values = environment(pod, container)
    return [expand(argument, values) for argument in container.get("args", [])]
