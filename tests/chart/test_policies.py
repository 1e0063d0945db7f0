"""Every pod that the chart renders, including Jobs and tests, meets the policies; and each policy can fail."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from tests.chart.policies import big_bang, big_bang_strict, hardened, restricted
from tests.chart.rendering import EXAMPLES, Object, containers, example, of_kind, pods, render

Policy = Callable[[Object], Iterator[str]]

# What a cluster refuses to run, or an auditor to accept: a path in the pod, the value there, and the policy's words.
BROKEN: list[tuple[Policy, str, Any, str]] = [
    (restricted, "spec.hostNetwork", True, "hostNetwork"),
    (restricted, "spec.volumes.0.hostPath", {"path": "/"}, "volume tmp"),
    (restricted, "spec.securityContext.sysctls", [{"name": "net.core.somaxconn"}], "sysctls"),
    (restricted, "spec.securityContext.runAsNonRoot", False, "root"),
    (restricted, "spec.securityContext.runAsUser", 0, "root"),
    (restricted, "spec.securityContext.seccompProfile.type", "Unconfined", "seccompProfile"),
    (restricted, "spec.containers.0.securityContext.privileged", True, "privileged"),
    (restricted, "spec.initContainers.0.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"),
    (restricted, "spec.containers.0.securityContext.capabilities", {"drop": []}, "capabilities"),
    (restricted, "spec.containers.0.ports.0.hostPort", 8000, "hostPort"),
    (restricted, "spec.containers.0.livenessProbe.httpGet.host", "example.gov", "host of a probe"),
    (hardened, "spec.automountServiceAccountToken", True, "automountServiceAccountToken"),
    (hardened, "spec.volumes.1.projected.sources.0.serviceAccountToken", {}, "a service-account token in a volume"),
    (hardened, "spec.containers.0.securityContext.readOnlyRootFilesystem", False, "a root file system"),
    (hardened, "spec.initContainers.0.resources.limits", {"cpu": "1"}, "no limit"),
    (hardened, "spec.containers.0.image", "muster/services:latest", "an image without a version"),
    (hardened, "spec.containers.0.image", "registry:5000/muster", "an image without a version"),
    (hardened, "spec.containers.0.env.0.valueFrom", {"secretKeyRef": {}}, "a secret in its environment"),
    (hardened, "spec.containers.0.args.0", "sh", "a shell"),
    (big_bang, "metadata.labels", {}, "no label app.kubernetes.io/name"),
    (big_bang, "spec.tolerations", [{"operator": "Exists"}], "tolerations"),
    (big_bang, "spec.containers.0.readinessProbe", None, "no probes"),
    (big_bang_strict, "spec.securityContext.runAsGroup", 0, "runAsGroup"),
    (big_bang_strict, "spec.containers.0.resources.limits.cpu", "3", "requests are not limits"),
    (big_bang_strict, "spec.containers.0.image", "registry1.dso.mil/muster:1", "without a digest"),
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_pod_keeps_the_policies(name: str) -> None:
    policies = [restricted, hardened, big_bang, *([big_bang_strict] if name == "bigbang" else ())]
    found = {
        pod_name: wrong
        for pod_name, pod in pods(example(name))
        if (wrong := [what for policy in policies for what in policy(pod)])
    }
    assert found == {}


def test_pods_that_no_example_has_meet_the_policies() -> None:
    operations = {"args": ["muster_operator", "streams"], "service": "billing"}
    found = dict(pods(render({"operations": operations, "preflight": {"mode": "hook"}})))
    (command,) = (pod for name, pod in found.items() if "-operation-" in name)
    for pod in (command, found["muster-preflight"]):
        assert [what for policy in (restricted, hardened, big_bang) for what in policy(pod)] == []


@pytest.mark.parametrize(
    ("policy", "path", "value", "words"), BROKEN, ids=lambda each: getattr(each, "__name__", str(each)[:40])
)
def test_a_pod_that_breaks_a_policy_is_found(policy: Policy, path: str, value: Any, words: str) -> None:
    pod = deepcopy(dict(pods(example("bigbang")))["muster-billing-api"])
    assert list(policy(pod)) == []
    _set(pod, path, value)
    assert any(words in what for what in policy(pod)), list(policy(pod))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_chart_creates_no_rights_no_accounts_and_no_secrets(name: str) -> None:
    kinds = {found["kind"] for found in example(name)}
    assert kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "Secret"} == set()
    services = of_kind(example(name), "Service").values()
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}


def test_only_a_migration_has_the_owners_secret() -> None:
    for name, pod in pods(example("standard")):
        sources = [
            source for volume in pod["spec"]["volumes"] for source in volume.get("projected", {}).get("sources", ())
        ]
        secrets = {source["secret"]["name"] for source in sources}
        migrates = pod["metadata"]["labels"]["muster/role"] == "migrate"
        assert any(secret.endswith("-owner") for secret in secrets) == migrates, name
        if migrates:
            assert len(secrets) == 1
        for container in containers(pod):
            assert container["image"] == f"muster/{'operator' if _is_operators(pod) else 'services'}:0.1.0", name


def _is_operators(pod: Object) -> bool:
    return pod["metadata"]["labels"]["muster/role"] in ("migrate", "preflight", "provision", "operations", "self-test")


def _set(found: Any, path: str, value: Any) -> None:
    """Set the value at a path; None deletes it."""
    *way, last = (int(key) if key.isdigit() else key for key in path.replace("app.kubernetes.io", "app").split("."))
    for key in way:
        found = found[key]
    if value is None:
        del found[last]
    else:
        found[last] = value
