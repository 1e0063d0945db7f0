"""A site's settings for all pods reach each of them, including Jobs and tests."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from infra.chart.generate import CHART
from muster_contracts import SERVICES
from muster_operator.preflight.subjects import environment_of
from muster_operator.target import Target
from tests.chart.rendering import EXAMPLES, Object, Values, containers, environment, example, of_kind, pods, render

CA = "/etc/muster/ca/ca.crt"

# A pod of a lost node is replaced after these seconds; Kubernetes' default is 300.
LOST = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for taint in ("not-ready", "unreachable")
]

STANDARD: Values = {"profile": "standard"}

EVERY_JOB: Values = {
    "provisioning": {"mode": "hook"},
    "preflight": {"mode": "hook"},
    "operations": {"args": ["muster_operator", "streams"], "service": "billing"},
}


def test_a_sites_settings_for_pods_reach_every_pod() -> None:
    rack = [{"key": "rack", "operator": "Exists"}]
    affinity: Object = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    site: Values = {
        **EVERY_JOB,
        "image": {"pullSecrets": ["registry", "mirror"], "pullPolicy": "Always"},
        "pods": {
            "annotations": {"example.gov/owner": "program"},
            "labels": {"example.gov/tier": "books"},
            "serviceAccountName": "muster-pods",
            "priorityClassName": "important",
            "nodeSelector": {"example.gov/zone": "inner"},
            "tolerations": rack,
            "affinity": affinity,
            "securityContext": {"fsGroup": 1000},
        },
    }
    for name, pod in pods(render(site)):
        spec = pod["spec"]
        assert pod["metadata"]["annotations"]["example.gov/owner"] == "program", name
        assert pod["metadata"]["labels"]["example.gov/tier"] == "books", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}], name
        assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("muster-pods", "important"), name
        assert spec["nodeSelector"] == {"example.gov/zone": "inner"}, name
        assert (spec["tolerations"], spec["affinity"]) == ([*rack, *LOST], affinity), name
        assert spec["securityContext"]["fsGroup"] == 1000, name
        assert {container["imagePullPolicy"] for container in containers(pod)} == {"Always"}, name


@pytest.mark.parametrize(
    ("own", "added"),
    [
        ([], LOST),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 600}], LOST[1:]),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}], LOST),
        ([{"operator": "Exists"}], []),  # every taint, without end
        ([{"operator": "Exists", "effect": "NoSchedule"}], LOST),
    ],
    ids=str,
)
def test_the_pods_of_a_lost_node_are_soon_replaced_unless_the_site_says_otherwise(
    own: list[Object], added: list[Object]
) -> None:
    for name, pod in pods(render({**EVERY_JOB, "pods": {"tolerations": own}})):
        assert pod["spec"].get("tolerations", []) == [*own, *added], name


def test_a_pod_answers_at_every_address_of_ipv4_and_ipv6() -> None:
    """In a cluster of IPv6 alone, nobody reaches what listens at 0.0.0.0."""
    serving = [each for _, pod in pods(render(EVERY_JOB)) for each in containers(pod) if "serve" in each["args"]]
    assert {each["args"][-1] for each in serving} == {"all", "operations"}
    assert {environment(each)["MUSTER_HTTP_HOST"] for each in serving} == {""}


def test_no_pod_gets_variables_of_the_clusters_services() -> None:
    """Otherwise, Kubernetes would set MUSTER_BILLING_PORT and more, which look like settings."""
    assert [name for name, pod in pods(render(EVERY_JOB)) if pod["spec"]["enableServiceLinks"] is not False] == []


def test_every_pod_that_calls_others_trusts_the_sites_authorities() -> None:
    for name, pod in pods(render({**EVERY_JOB, "trustedCA": {"configMap": "authorities"}})):
        for container in _calling(pod):
            variables = environment(container)
            assert (variables["SSL_CERT_FILE"], variables["MUSTER_KAFKA_CA_FILE"]) == (CA, CA), name
            assert {"name": "ca", "mountPath": "/etc/muster/ca", "readOnly": True} in container["volumeMounts"], name
    for name, pod in pods(render({**EVERY_JOB, "trustedCA": {"configMap": "authorities", "https": False}})):
        for container in _calling(pod):
            variables = environment(container)
            assert "SSL_CERT_FILE" not in variables, name  # the public ones stay trusted
            assert variables["MUSTER_KAFKA_CA_FILE"] == CA, name


def test_every_service_is_traced_if_the_site_has_a_collector() -> None:
    traced = {"tracing": {"endpoint": "http://collector:4318", "ratio": 0.05}}
    services = [
        container
        for _, pod in pods(render({**EVERY_JOB, **traced}))
        for container in containers(pod)
        if container["image"].startswith("muster/services:")
    ]
    assert services
    for container in services:
        assert {key: value for key, value in environment(container).items() if key.startswith("OTEL_")} == {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.05",
        }
    for name, pod in pods(render({**EVERY_JOB, "trustedCA": {"configMap": "authorities"}})):
        for container in containers(pod):
            assert not any(key.startswith("OTEL_") for key in environment(container)), name


@pytest.mark.parametrize(("https", "certificate"), [(True, CA), (False, None)])
def test_the_collectors_certificate_may_be_of_the_sites_authority(https: bool, certificate: str | None) -> None:
    traced = {"tracing": {"endpoint": "https://collector:4318"}, "trustedCA": {"configMap": "ca", "https": https}}
    (found,) = (containers(pod) for name, pod in pods(render(traced)) if name == "muster-billing-all")
    assert {environment(each).get("OTEL_EXPORTER_OTLP_CERTIFICATE") for each in found} == {certificate}


def _calling(pod: Object) -> list[Object]:
    """The containers that call more than Postgres, whose authority is in a DSN."""
    return [] if pod["metadata"]["labels"]["muster/role"] == "migrate" else containers(pod)


def test_a_hook_starts_without_its_secrets_and_says_what_is_missing() -> None:
    """Otherwise, it would stay in ContainerCreating until its deadline, and Helm would report only that."""
    hooks = {
        "preflight": {"mode": "hook"},
        "provisioning": {"mode": "hook"},
        "operations": {"args": ["muster_operator", "streams"]},
    }
    job: Values = {"migrations": {"mode": "job"}, "provisioning": {"mode": "job"}}
    seen = set()
    for found in (*render(hooks), *render(job)):
        is_hook = "helm.sh/hook" in (found["metadata"].get("annotations") or {})
        for name, pod in pods((found,)):
            (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "secrets")
            optional = {source["secret"].get("optional", False) for source in volume["projected"]["sources"]}
            assert optional == {is_hook}, name
            seen.add((pod["metadata"]["labels"]["muster/role"], is_hook))
    hooked = {"preflight", "provision", "migrate", "self-test"}
    assert seen == {(role, True) for role in hooked} | {
        (role, False) for role in ("all", "provision", "migrate", "operations")
    }


def test_only_the_pods_of_jobs_have_the_labels_of_jobs() -> None:
    inject = "sidecar.istio.io/inject"
    objects = render({**EVERY_JOB, "pods": {"labels": {inject: "true"}, "jobLabels": {inject: "false"}}})
    serving = {name for name, pod in pods(objects) if pod["metadata"]["labels"][inject] == "true"}
    assert serving == set(of_kind(objects, "Deployment"))


def test_a_pod_without_secrets_has_an_empty_folder_for_them() -> None:
    values: Values = {**EVERY_JOB, "selfTest": {"secrets": []}, "provisioning": {"mode": "hook", "secrets": []}}
    for name, pod in pods(render(values)):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


def test_the_preflight_checks_find_each_key_in_one_secret() -> None:
    own = {
        "secrets": [{"name": "pg"}, {"name": "kafka", "items": [{"key": "password", "path": "MUSTER_KAFKA_PASSWORD"}]}]
    }
    objects = render({"preflight": {"mode": "hook"}, "services": {"billing": own}})
    (pod,) = (pod for name, pod in pods(objects) if name == "muster-preflight")
    (sources,) = (each["projected"]["sources"] for each in pod["spec"]["volumes"] if each["name"] == "secrets")
    found = Counter(item["path"] for source in sources for item in source["secret"].get("items", ()))
    assert found["billing/MUSTER_KAFKA_PASSWORD"] == 1
    assert found["billing/MUSTER_POSTGRES_API_DSN"] == 1
    assert set(found.values()) == {1}


OAUTHBEARER: Values = {
    "kafka": {"saslMechanism": "OAUTHBEARER"},
    "settings": {"MUSTER_KAFKA_TOKEN_URL": "https://login.example.gov/token"},
    "services": {name: {"settings": {"MUSTER_KAFKA_CLIENT_ID": f"muster-{name}"}} for name in SERVICES},
    "operations": {"settings": {"MUSTER_KAFKA_CLIENT_ID": "muster-operator"}},
}


@pytest.mark.parametrize(
    "values", [OAUTHBEARER, yaml.safe_load(EXAMPLES["operators"].read_text("utf-8"))], ids=["OAUTHBEARER", "operators"]
)
def test_the_preflight_checks_use_each_services_own_settings(values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(pods(render({**values, "profile": "small", "preflight": {"mode": "hook"}}, is_upgrade=True)))
    (check,) = containers(found["muster-preflight"])
    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        monkeypatch.delenv(name)
    for name, value in environment(check).items():
        monkeypatch.setenv(name, value)
    for service in SERVICES:
        (serving,) = found[f"muster-{service}-all"]["spec"]["containers"]
        checked = environment_of(Target({}, "", "", {}, ""), service)
        settings = {name: value for name, value in checked.items() if name in environment(serving) or "MUSTER" in name}
        assert settings == environment(serving)
    # The topics of the cluster are compared by the operator's own user.
    assert environment(check).get("MUSTER_KAFKA_CLIENT_ID") in ("muster-operator", None)
    assert "MUSTER_KAFKA_USERNAME" not in environment(check)


def test_a_new_chart_replaces_only_the_pods_whose_image_is_new(tmp_path: Path) -> None:
    """So the runbook can upgrade one service before the others."""
    described = (CHART / "Chart.yaml").read_text("utf-8")
    newer = Path(shutil.copytree(CHART, tmp_path / "muster"))
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 9.9.9", described), "utf-8")
    running = yaml.safe_load(described)["appVersion"]
    first = {"image": {"services": {"tag": running}}, "services": {"notify": {"tag": "9.9.9"}}}
    before = of_kind(render(STANDARD), "Deployment")
    after = of_kind(render({**STANDARD, **first}, is_upgrade=True, chart=newer), "Deployment")
    changed = {name for name in before if before[name]["spec"]["template"] != after[name]["spec"]["template"]}
    assert changed == {name for name in before if name.startswith("muster-notify-")}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ({"tag": "0.2.0"}, "0.2.0"),
        ({"tag": "_build-" + "7" * 80}, "build-" + "7" * 56),
        ({"digest": f"sha256:{2:064}"}, f"sha256-{0:056}"),
    ],
    ids=str,
)
def test_a_pods_version_is_that_of_its_image(image: Values, version: str) -> None:
    for name, pod in pods(render({"services": {"notify": image}, "image": {"operator": {"tag": "0.3.0"}}})):
        own, job = name.startswith("muster-notify-all"), not name.endswith("-all")
        expected = version if own else "0.3.0" if job else "0.1.0"
        assert pod["metadata"]["labels"]["app.kubernetes.io/version"] == expected, name


def test_two_installations_of_one_release_select_only_their_own_pods() -> None:
    east, west = (render({"fullnameOverride": name}) for name in ("east", "west"))
    labels = [pod["metadata"]["labels"] for _, pod in pods(west)]
    selectors = [each["spec"]["selector"] for each in of_kind(east, "Service").values()]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind(east, "Deployment").values()]
    selectors += [
        each["spec"]["podSelector"].get("matchLabels", {}) for each in of_kind(east, "NetworkPolicy").values()
    ]
    assert len(selectors) > len(labels) / 2
    assert not [each for each in labels for selector in selectors if selector.items() <= each.items()]


def test_the_network_policies_may_come_before_argo_cds_jobs() -> None:
    policies = of_kind(example("argocd"), "NetworkPolicy").values()
    assert {each["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for each in policies} == {"-3"}
