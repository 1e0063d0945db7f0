"""A real API server accepts everything that the chart can render, with other operators' resources defined."""

from copy import deepcopy

import pytest

from tests.chart.rendering import EXAMPLES, Object, Values, example, render
from tests.cluster.kube import HOME, CommandFailed, Kube
from tests.cluster.release import namespace

DEFINITIONS = HOME / "definitions"

# An empty namespace: otherwise, the server would compare an object with the current one.
NAMESPACE = "muster-dry-run"

# What the examples omit; a first install cannot have all of it.
JOBS: Values = {
    "preflight": {"mode": "hook"},
    "provisioning": {"mode": "hook"},
    "operations": {"args": ["muster_operator", "streams"]},
}

# The priority class of an example's pods.
PRIORITY = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "muster"},
    "value": 1000,
}


@pytest.fixture
async def defined(kube: Kube) -> Kube:
    """The cluster, with the other operators' definitions."""
    await kube.apply([namespace(NAMESPACE), PRIORITY])
    await kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(DEFINITIONS))
    await kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    return kube


async def test_the_api_server_takes_every_object_that_a_release_may_have(defined: Kube) -> None:
    for name in EXAMPLES:
        await defined.try_apply(_known(example(name)), NAMESPACE)
    await defined.try_apply(render(JOBS, is_upgrade=True), NAMESPACE)


async def test_it_refuses_a_wrong_field_of_another_operators_object(defined: Kube) -> None:
    kinds = {"HTTPRoute": "hostname", "ScaledObject": "maxReplicas", "PodMonitor": "endpoints", "Database": "schema"}
    found = {each["kind"]: each for name in EXAMPLES for each in _known(example(name))}
    for kind, field in kinds.items():
        wrong = found[kind]
        wrong["spec"][field] = "x"
        with pytest.raises(CommandFailed, match=rf'unknown field "{field}"|\.{field}: field not declared'):
            await defined.try_apply([wrong], NAMESPACE)


def _known(objects: tuple[Object, ...]) -> list[Object]:
    """The objects without Strimzi's, whose definitions the cluster does not have, and without other namespaces."""
    known = deepcopy([found for found in objects if not found["apiVersion"].startswith("kafka.strimzi.io/")])
    for found in known:
        found["metadata"].pop("namespace", None)
    return known
