"""Each example renders objects that the API of every supported Kubernetes version accepts."""

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import helm_python
import jsonschema_rs
import pytest
import yaml

from infra.chart.generate import CHART, documents
from infra.supply_chain.packages import own_packages
from muster_contracts import SERVICES
from tests.chart.rendering import EXAMPLES, Object, containers, environment, example, leaves, of_kind, pods, render

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]

# Each version takes half a second: `make chart-test` tries them all, and `make test` the oldest and the newest.
EVERY = os.environ.get("MUSTER_CHART_VERSIONS") == "all"
TRIED = VERSIONS if EVERY else [VERSIONS[0], VERSIONS[-1]]
LINTED = VERSIONS if EVERY else VERSIONS[-1:]

MONITORING = {name: {"enabled": True} for name in ("podMonitor", "rules", "dashboards")}

# Objects for other projects' operators. A real cluster checks these against their definitions.
OTHERS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("kafka.strimzi.io/v1", "KafkaTopic"),
    ("kafka.strimzi.io/v1", "KafkaUser"),
    ("postgresql.cnpg.io/v1", "Database"),
    ("postgresql.cnpg.io/v1", "DatabaseRole"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_version_accepts_every_object(name: str) -> None:
    assert [wrong for version in TRIED for wrong in _rejected(example(name), version)] == []


def test_a_wrong_object_is_rejected() -> None:
    (deployment,) = (found for found in example("small") if found["metadata"]["name"] == "muster-billing-all")
    wrong = json.loads(json.dumps(deployment))
    wrong["spec"]["template"]["spec"]["containers"][0]["port"] = 8000
    assert list(_rejected((wrong,), "1.37")) != []


@pytest.mark.parametrize("name", EXAMPLES)
def test_lint_finds_nothing_in_the_examples(name: str) -> None:
    values = yaml.safe_load(EXAMPLES[name].read_text("utf-8"))
    for version in LINTED:
        assert _findings(values, version) == []


def test_lint_finds_nothing_in_the_defaults() -> None:
    assert _findings({}, VERSIONS[-1]) == []


def test_no_template_asks_for_the_kubernetes_version() -> None:
    """So the chart renders the same objects for every version."""
    for template in (CHART / "templates").rglob("*.*"):
        assert ".Capabilities" not in template.read_text("utf-8"), template
        assert "lookup " not in template.read_text("utf-8"), template  # which returns nothing in a dry run


def test_an_older_version_is_refused() -> None:
    minimum = re.fullmatch(r">=(1\.\d+)\.0-0", yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["kubeVersion"])
    assert minimum is not None
    assert minimum[1] == VERSIONS[0]


def test_an_upgrade_renders_what_an_install_does() -> None:
    values = yaml.safe_load(EXAMPLES["large"].read_text("utf-8"))
    assert render(values) == render(values, is_upgrade=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_are_unique_and_short_enough_for_labels(name: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in example(name)]
    assert len(names) == len(set(names))
    assert {each for _, each in names if len(each) > 63} == set()


def test_the_longest_name_still_fits() -> None:
    job = {"migrations": {"mode": "job"}, "provisioning": {"mode": "job"}, "fullnameOverride": "x" * 30}
    assert {found["metadata"]["name"] for found in render(job) if len(found["metadata"]["name"]) > 63} == set()


def test_a_name_of_digits_stays_text() -> None:
    """YAML would read it as a number, which Kubernetes refuses, some of it only after the hooks."""
    year = 2024
    name = str(year)
    values = {
        "profile": "standard",
        "fullnameOverride": "muster",
        "image": {"pullSecrets": [name]},
        "trustedCA": {"configMap": name},
        "pods": {"serviceAccountName": name, "priorityClassName": name},
        "migrations": {"mode": "job"},
        "operations": {"args": ["muster_operator", "streams"]},
        "autoscaling": {"api": {"enabled": True}, "consumer": {"enabled": True, "authentication": name}},
        "http": {
            "domain": name,
            "gateway": {"enabled": True, "parentRefs": [{"name": name}]},
            "ingress": {"enabled": True, "className": name, "tlsSecret": name},
        },
        "monitoring": MONITORING,
        "strimzi": {"enabled": True, "cluster": name, "namespace": name},
        "cloudnativepg": {"enabled": True, "cluster": name, "namespace": name},
    }
    objects = render(values, name=name)
    assert [found["metadata"]["name"] for found in objects if year in leaves(found)] == []
    (secret,) = (pod for found, pod in pods(render({"trustedCA": {"secret": name}})) if found == "muster-self-test")
    assert year not in leaves(secret)


def test_a_name_that_yaml_reads_as_a_boolean_stays_text() -> None:
    objects = render({"monitoring": MONITORING}, name="true")
    assert [found["kind"] for found in objects if not isinstance(found["metadata"]["name"], str)] == []


def test_the_chart_has_the_packages_version_and_names_its_images() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    versions = {package.version for package in own_packages() if package.name != "muster-contracts"}
    assert versions == {chart["version"]} == {chart["appVersion"]}
    named = {each["image"] for each in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])}
    assert named == {container["image"] for _, pod in pods(example("small")) for container in containers(pod)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_examples_self_test_can_get_a_token(name: str) -> None:
    (test,) = (pod for found, pod in pods(example(name)) if found == "muster-self-test")
    assert environment(containers(test)[0])["MUSTER_CLIENT_ID"] == "muster-operator"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_with_a_proxy_says_so_to_the_services(name: str) -> None:
    objects = example(name)
    if of_kind(objects, "Ingress") or of_kind(objects, "HTTPRoute"):
        for deployment in of_kind(objects, "Deployment").values():
            variables = environment(containers(deployment["spec"]["template"])[-1])
            assert variables["MUSTER_HTTP_BEHIND_TLS"] == "true"
            assert variables["MUSTER_HTTP_CONNECTIONS_PER_ADDRESS"] == "4000"


def test_an_ingress_has_only_prefixes_without_metrics_and_health() -> None:
    """OpenShift creates no Route for a path of type Exact."""
    for ingress in of_kind(example("openshift"), "Ingress").values():
        (rule,) = ingress["spec"]["rules"]
        paths = [(each["path"], each["pathType"]) for each in rule["http"]["paths"]]
        assert paths == [("/v1", "Prefix"), ("/docs", "Prefix"), ("/openapi.json", "Prefix")]


def test_a_route_publishes_neither_metrics_nor_health() -> None:
    routes = of_kind(example("standard"), "HTTPRoute")
    assert set(routes) == {f"muster-{service}" for service in SERVICES}
    for name, route in routes.items():
        assert route["spec"]["hostnames"] == [f"{name.removeprefix('muster-')}.muster.example.gov"]
        assert route["spec"]["rules"] == [
            {
                "matches": [
                    {"path": {"type": "PathPrefix", "value": "/v1"}},
                    {"path": {"type": "PathPrefix", "value": "/docs"}},
                    {"path": {"type": "Exact", "value": "/openapi.json"}},
                ],
                "backendRefs": [{"name": name, "port": 80}],
            }
        ]


def test_the_package_renders_what_the_folder_does(tmp_path: Path) -> None:
    values = yaml.safe_load(EXAMPLES["small"].read_text("utf-8")) | {"monitoring": MONITORING}
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(CHART) as folder, helm_python.Chart.load(archive) as package:
        assert package.render(values) == folder.render(values)
        assert {each["name"] for each in package.files} >= {"facts.yaml", "rules/slo.rules.yml"}


def test_generated_files_are_up_to_date() -> None:
    old = [str(file) for file, text in documents().items() if file.read_text("utf-8") != text]
    assert old == [], "make chart"


def _findings(values: dict[str, Any], version: str) -> list[str]:
    report = helm_python.lint(CHART, values, strict=True, namespace="muster", kube_version=f"v{version}.0")
    assert report["total_charts_linted"] == 1
    told = [each["error"] for each in report["messages"] if each["severity"] > 1]
    return [*report["errors"], *told]


def _rejected(objects: tuple[Object, ...], version: str) -> Iterator[str]:
    for found in objects:
        kind = (found["apiVersion"], found["kind"])
        if kind not in OTHERS:
            for error in _schema(*kind, version).iter_errors(found):
                yield f"{version}: {kind[1]} {found['metadata']['name']}: {error.message}"


@cache
def _schema(api_version: str, kind: str, version: str) -> Any:
    """The strict schema of a kind: an unknown key is an error."""
    group, _, name = api_version.rpartition("/")
    file = "-".join(filter(None, (kind.lower(), group.partition(".")[0], name)))
    schema = json.loads(_folder(version).joinpath(f"{file}.json").read_text("utf-8"))
    return jsonschema_rs.Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> jsonschema_rs.Registry:
    definitions = json.loads(_folder(version).joinpath("_definitions.json").read_text("utf-8"))
    return jsonschema_rs.Registry([("json-schema:///api/_definitions.json", definitions)])


def _folder(version: str) -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
