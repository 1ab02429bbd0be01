"""Every stack renders, fits the schemas of the oldest and newest Kubernetes we support, and means what it should."""

import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.custom_resources import SCHEMAS
from tests.k8s.manifests import K8S, STACKS, Object, environment, pods, render
from tests.k8s.meaning import problems, workers

KUBERNETES = ("1.31", "1.37")


def validate(found: Object, kubernetes: str) -> None:
    """Raises for a field that does not exist, a wrong type, or a kind that neither Kubernetes nor our schemas know."""
    schema = SCHEMAS.get((found["apiVersion"], found["kind"]))
    if schema:
        jsonschema.validate(found, schema)
    else:
        kubernetes_validate.validate(found, kubernetes, strict=True)


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_fits_the_schemas(stack: str, kubernetes: str) -> None:
    for found in render(stack):
        validate(found, kubernetes)


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_means_what_it_should(stack: str) -> None:
    assert problems(render(stack)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_no_object_is_there_twice(stack: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in render(stack)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("stack", sorted({path.name for path in (K8S / "overlays").iterdir()}))
def test_everything_of_an_overlay_is_in_the_namespace_that_allows_restricted_pods_only(stack: str) -> None:
    objects = render(stack)
    [namespace] = [found for found in objects if found["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    places = {found["metadata"].get("namespace") for found in objects if found is not namespace}
    assert places == {namespace["metadata"]["name"]}


@pytest.mark.parametrize(
    "kind", ["Job", "Deployment", "Service", "ServiceMonitor", "PrometheusRule", "ClusterQueue", "NetworkPolicy"]
)
def test_a_misspelt_field_fails_its_schema(kind: str) -> None:
    found = next(found for found in render("everything") if found["kind"] == kind)
    validate(found, KUBERNETES[0])
    found["spec"]["replicass"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(found, KUBERNETES[0])


def test_a_kind_that_nobody_knows_is_no_silent_skip() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Cohort", "metadata": {"name": "x"}}, KUBERNETES[0])


def test_another_run_with_several_workers_keeps_their_names_right(tmp_path: Path) -> None:
    """As k8s/README.md says to do it. A nameSuffix would rename the workers' Service, and not the subdomain."""
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "another-run"
    with (overlay / "kustomization.yaml").open("a") as kustomization:
        kustomization.write("components: [../../components/gpu, ../../components/multi-worker]\n")
    done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, timeout=60, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    assert list(workers(objects)) == []
    [pod] = pods(objects)
    assert pod.owner["metadata"]["name"] == "train-accurate"
    assert environment(pod, pod.spec["containers"][0])["DIGITS_JOB"] == "train-accurate"
