"""Schemas of the custom resources that we use, for which `kubernetes-validate` has none.

They contain only the fields of our manifests. A new field needs a line here, from the resource's own definition
(github.com/prometheus-operator/prometheus-operator, github.com/kubernetes-sigs/kueue).
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
SELECTOR: Schema = {
    "type": "object",
    "properties": {"matchLabels": LABELS},
    "additionalProperties": False,
}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}
QUANTITY: Schema = {"type": ["string", "integer"], "pattern": "^[0-9]+([KMGT]i?|m)?$"}


def _fields(required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _many(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _resource(api_version: str, kind: str, spec: Schema | None) -> Schema:
    return _fields(
        "apiVersion kind metadata" + (" spec" if spec else ""),
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=_fields("name", name=TEXT, namespace=TEXT, labels=LABELS),
        **({"spec": spec} if spec else {}),
    )


_RULE = _fields("alert expr", alert=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS, **{"for": DURATION})
_ENDPOINT = _fields("port", port=TEXT, path=TEXT, interval=DURATION)
_FLAVOR = _fields(
    "name resources", name=TEXT, resources=_many(_fields("name nominalQuota", name=TEXT, nominalQuota=QUANTITY))
)
_GROUP = _fields("coveredResources flavors", coveredResources=_many(TEXT), flavors=_many(_FLAVOR))

SCHEMAS: dict[tuple[str, str], Schema] = {
    (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
    for schema in (
        _resource(
            "monitoring.coreos.com/v1",
            "ServiceMonitor",
            _fields("selector endpoints", selector=SELECTOR, endpoints=_many(_ENDPOINT)),
        ),
        _resource(
            "monitoring.coreos.com/v1",
            "PrometheusRule",
            _fields("groups", groups=_many(_fields("name rules", name=TEXT, rules=_many(_RULE)))),
        ),
        _resource("kueue.x-k8s.io/v1beta2", "ResourceFlavor", None),
        _resource(
            "kueue.x-k8s.io/v1beta2",
            "ClusterQueue",
            _fields("namespaceSelector resourceGroups", namespaceSelector=SELECTOR, resourceGroups=_many(_GROUP)),
        ),
        _resource("kueue.x-k8s.io/v1beta2", "LocalQueue", _fields("clusterQueue", clusterQueue=TEXT)),
    )
}
