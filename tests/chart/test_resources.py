"""Resources that Kubernetes would refuse after the install has begun are refused before."""

import re

import pytest

from tests.chart.rendering import Refused, Values, containers, of_kind, pods, render

Resources = dict[str, dict[str, object] | None]


def _all(**resources: dict[str, object] | None) -> Values:
    return {"roles": {"all": {"resources": resources}}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            _all(requests={"memory": "1Gi"}),
            "billing-all has requests.memory 1Gi, but limits.memory 512Mi: a request must not exceed its limit",
        ),
        (
            {
                "profile": "standard",
                "services": {"notify": {"roles": {"api": {"resources": {"limits": {"cpu": "99m"}}}}}},
            },
            "notify-api has requests.cpu 100m, but limits.cpu 99m",
        ),
        (
            {"profile": "standard", **_all(requests={"cpu": 2.5})},
            "roles.all.resources has requests.cpu 2.5, but limits.cpu 2",
        ),
        (
            {"migrations": {"resources": {"requests": {"memory": "1e9"}}}},
            "migrations.resources has requests.memory 1e9, but limits.memory 256Mi",
        ),
        (_all(limits={"cpu": 0}), "billing-all has requests.cpu 100m, but limits.cpu 0: a request"),
        (_all(limit={"cpu": "1"}), "at '/roles/all/resources'.*'limit' not allowed"),
        (_all(limits={"memory": "512MB"}), "at '/roles/all/resources/limits/memory'"),
    ],
    ids=str,
)
def test_resources_that_kubernetes_would_refuse_are_refused(values: Values, words: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert re.search(words, str(refused.value), flags=re.DOTALL), refused.value


@pytest.mark.parametrize(
    "resources",
    [
        {"requests": {"cpu": 2, "memory": "512Mi"}},  # equal to the limits
        {"requests": {"cpu": "1500m", "memory": "0.5G"}},
        {"requests": {"cpu": "8"}, "limits": None},
        {"requests": {"memory": "0.25Gi"}, "limits": {"memory": "1e9"}},
        {"requests": {"cpu": "+1", "memory": ".25Gi"}, "limits": {"cpu": "1.", "memory": ".5Gi"}},
        {"requests": {"cpu": 0}, "limits": {"cpu": 0}},
        {"limits": {"cpu": None}},
    ],
    ids=str,
)
def test_a_request_up_to_its_limit_is_accepted(resources: Resources) -> None:
    assert render({"roles": {"all": {"resources": resources}}})


@pytest.mark.parametrize(
    "resources", [None, {"limits": None, "requests": None}, {"limits": {"cpu": None, "memory": None}}], ids=str
)
def test_null_removes_a_quantity_of_a_single_service(resources: Resources | None) -> None:
    """Helm removes only what is null in place of the chart's own default; to Kubernetes, null is a limit of 0."""
    objects = render({"services": {"billing": {"roles": {"all": {"resources": resources}}}}})
    for container in containers(of_kind(objects, "Deployment")["muster-billing-all"]["spec"]["template"]):
        assert container["resources"].keys() <= {"requests"}
        assert None not in container["resources"].values()


def test_null_is_a_quantity_of_no_pod() -> None:
    nothing = {"limits": {"ephemeral-storage": None}}
    operations = {"service": "billing", "args": ["muster_operator", "streams"]}
    values = {"roles": {"all": {"resources": nothing}}, "migrations": {"resources": nothing}, "operations": operations}
    objects = render(values)
    for name, pod in pods(objects):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert "ephemeral-storage" not in container["resources"].get("limits", {}), name


@pytest.mark.parametrize("profile", ["standard", "large"])
def test_an_operators_command_has_the_resources_of_the_role_all(profile: str) -> None:
    more = {"requests": {"cpu": "1", "memory": "300Mi"}, "limits": {"cpu": "1", "memory": "300Mi"}}
    operations = {"service": "billing", "args": ["muster_operator", "streams"]}
    objects = render({"profile": profile, "roles": {"all": {"resources": more}}, "operations": operations})
    (pod,) = (pod for name, pod in pods(objects) if "-operation-" in name)
    assert pod["spec"]["initContainers"][0]["resources"] == more
