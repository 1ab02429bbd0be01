"""How the API server handles a manifest: values that it rejects, and defaults that make a second `apply` change objects.

The published schemas have no enumerations, and no schema says what `kubectl apply` sends the second time.
"""

from collections.abc import Iterator
from typing import Any

from tests.k8s.manifests import Object, of_kind, walk

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
    "strategy.type": {"RollingUpdate", "Recreate"},
    "target.type": {"Utilization", "Value", "AverageValue"},
    "tolerations.operator": {"Exists", "Equal"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
}
"""Values that the API server accepts, by field, or by the field above and the field."""

QUANTITIES = {"limits", "requests", "emptyDir.sizeLimit", "resources.nominalQuota"}
"""Fields whose values are quantities, which the API server stores as text."""


def enums(objects: list[Object]) -> Iterator[str]:
    """Every enumerated field has a value that exists."""
    for found in objects:
        for parent, key, value in walk(found):
            allowed = ENUMS.get(f"{parent}.{key}") or ENUMS.get(key)
            if allowed and isinstance(value, str) and value not in allowed:
                yield f"{_name(found)}: {key} is {value!r}; expected one of {sorted(allowed)}"


def settled(objects: list[Object]) -> Iterator[str]:
    """A second `kubectl apply` finds nothing to change.

    The API server adds defaults and stores a quantity as text. In the places below `kubectl apply` takes that for a
    difference, and reports the object as configured although nothing changed.
    """
    for found in objects:
        for parent, key, value in walk(found):
            is_quantity = f"{parent}.{key}" in QUANTITIES or parent in QUANTITIES
            if is_quantity and not isinstance(value, str):
                yield f"{_name(found)}: {key} is the number {value}; expected the text {str(value)!r}"
    for deployment in of_kind(objects, "Deployment"):
        if "strategy" in deployment["spec"] and "type" not in deployment["spec"]["strategy"]:
            yield f"{_name(deployment)}: strategy has no type"
    for policy in of_kind(objects, "NetworkPolicy"):
        if any("protocol" not in port for rule in _rules(policy) for port in rule.get("ports", [])):
            yield f"{_name(policy)}: a port has no protocol"


def _rules(policy: Object) -> list[Any]:
    return [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]


def _name(found: Object) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"
