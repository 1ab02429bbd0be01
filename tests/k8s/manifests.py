"""Rendered manifests, and what is asked of them everywhere: their pods, and the arguments that a container really gets."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
K8S = (REPOSITORY / "k8s").resolve()

Object = dict[str, Any]

COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
STACKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "base": (("base",), ()),
    **{f"base+{name}": (("base",), (name,)) for name in COMPONENTS},
    **{path.name: ((f"overlays/{path.name}",), ()) for path in sorted((K8S / "overlays").iterdir())},
    # These bring a Job only, and find the rest where the first run left it.
    **{name: (("overlays/local", f"overlays/{name}"), ()) for name in ("another-run", "rollback")},
    "base+kueue": (("base", "components/kueue/quota"), ("kueue",)),
    "everything": (("overlays/gpu-multi-worker", "components/kueue/quota"), ("kueue", "prometheus")),
}
"""What is rendered: name -> (resources, components), as folders under k8s/."""


@cache
def _rendered(stack: str) -> str:
    resources, components = STACKS[stack]
    with tempfile.TemporaryDirectory() as folder:
        k8s = os.path.relpath(K8S, Path(folder).resolve())  # kustomize refuses absolute paths
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{k8s}/{path}" for path in resources],
            "components": [f"{k8s}/components/{name}" for name in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(stack: str) -> list[Object]:
    """The objects of a stack, as `kubectl apply` would send them; the caller's own, to damage as it likes."""
    # The parser written in C is ten times faster, and there are a hundred faults to plant.
    return [found for found in yaml.load_all(_rendered(stack), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if found]


@dataclass(frozen=True)
class Pod:
    """The pod that a Job or a Deployment makes."""

    owner: Object
    spec: Object
    labels: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str | int, int]:
        """Every port that a container opens, by name and by number."""
        opened = [port for container in self.containers for port in container.get("ports", [])]
        return {
            key: port["containerPort"] for port in opened for key in (port.get("name"), port["containerPort"]) if key
        }


def pods(objects: list[Object]) -> list[Pod]:
    templates = [(found, found["spec"]["template"]) for found in objects if found["kind"] in ("Deployment", "Job")]
    return [Pod(owner, template["spec"], template["metadata"].get("labels", {})) for owner, template in templates]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name; KeyError if there is none."""
    for found in of_kind(objects, kind):
        if found["metadata"]["name"] == name:
            return found
    raise KeyError(f"{kind}/{name}")


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector, or a Service's plain map, matches."""
    wanted = selector.get("matchLabels", {}) if {"matchLabels", "matchExpressions"} & set(selector) else selector
    assert "matchExpressions" not in selector, "teach this function expressions before using them"
    return all(labels.get(key) == value for key, value in wanted.items())


def walk(value: Any, parent: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value in a tree as (key above, key, value); the items of a list stand under the list's key."""
    yield parent, key, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from walk(child, key, name)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child, parent, key)


def environment(pod: Pod, container: Object) -> dict[str, str]:
    """What the container finds in its environment. A `$(NAME)` sees only what stands before it, as in Kubernetes."""
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
    """`$(NAME)` replaced where NAME is known, and left as it stands where not: so does Kubernetes."""
    return re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: values.get(match[1], match[0]), text)


def arguments(pod: Pod, container: Object) -> list[str]:
    """The container's arguments, with its environment filled in."""
    values = environment(pod, container)
    return [expand(argument, values) for argument in container.get("args", [])]
