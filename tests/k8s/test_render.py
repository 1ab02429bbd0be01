"""Every stack renders, fits the schemas of the oldest and newest supported Kubernetes, and passes the checks."""

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.checks import problems
from tests.k8s.custom_resources import SCHEMAS
from tests.k8s.manifests import K8S, STACKS, Object, different, render

KUBERNETES = ("1.31", "1.37")


def validate(found: Object, kubernetes: str) -> None:
    """Raise for a field that does not exist, a wrong type, or a kind that neither Kubernetes nor our schemas know."""
    schema = SCHEMAS.get((found["apiVersion"], found["kind"]))
    if schema:
        jsonschema.validate(found, schema)
    else:
        kubernetes_validate.validate(found, kubernetes, strict=True)


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_of_every_stack_fits_the_schemas(kubernetes: str) -> None:
    for found in different(found for stack in STACKS for found in render(stack)):
        validate(found, kubernetes)


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_passes_the_checks(stack: str) -> None:
    assert problems(render(stack)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_every_object_has_a_name_of_its_own(stack: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in render(stack)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("stack", sorted({path.name for path in (K8S / "overlays").iterdir()}))
def test_an_overlay_is_in_a_namespace_that_accepts_restricted_pods_only(stack: str) -> None:
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


def test_an_unknown_kind_fails() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Cohort", "metadata": {"name": "x"}}, KUBERNETES[0])
