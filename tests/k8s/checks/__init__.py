"""What neither a schema nor the linter can see: each check yields one sentence per mistake in a set of manifests.

test_render.py runs `CHECKS` on every rendered stack. test_checks.py plants one mistake at a time for its check to find.
`wiring` is about references between objects, `storage` about volumes, `workloads` about Jobs and Deployments, and `api`
about values that the API server rejects and objects that change at every `kubectl apply`.
"""

from tests.k8s.checks import api, storage, wiring, workloads
from tests.k8s.manifests import Object

CHECKS = (
    wiring.selectors, wiring.ports, wiring.targets, wiring.variables, wiring.workers,
    storage.volumes, storage.one_node, storage.drains,
    workloads.jobs, workloads.probes, workloads.rollouts, workloads.quantities, workloads.queues,
    api.enums, api.settled,
)  # fmt: skip


def problems(objects: list[Object]) -> list[str]:
    """Every mistake that any check finds."""
    return [problem for check in CHECKS for problem in check(objects)]
