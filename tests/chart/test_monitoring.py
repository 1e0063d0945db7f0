"""What Prometheus and Grafana get: every metric that they query exists, and every alert leads to its runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.chart.generate import ALERTS, ROOT
from tests.chart.dashboards import DASHBOARDS, expressions, panels
from tests.chart.rendering import Object, example, of_kind, pods, render
from tests.support.metrics_page import samples


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The samples of the real metrics pages, and the series that the rules record."""
    return samples() | {rule["record"] for rule in _rules() if "record" in rule}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_panel_queries_metrics_that_exist(file: Path, known: set[str]) -> None:
    asked = [set(re.findall(r"\bmuster[_:][\w:]+", expression)) for expression in expressions(file)]
    assert all(asked)
    assert {metric for each in asked for metric in each} - known == set()


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_panel_shows_the_chosen_namespace_and_keeps_namespaces_apart(file: Path) -> None:
    for expression in expressions(file, namespace="chosen"):
        series = re.findall(r"\bmuster[_:][\w:]+(?:\{[^}]*)?", expression)
        assert all('namespace=~"chosen"' in each for each in series if not each.startswith("muster:slo_budget")), series
        assert all(each.startswith("namespace") for each in re.findall(r"\bby \(([^)]*)\)", expression)), expression
    assert all("{{namespace}}" in target["legendFormat"] for panel in panels(file) for target in panel["targets"])


def test_the_dashboards_are_the_six_and_their_panels_do_not_overlap() -> None:
    assert {file.stem for file in DASHBOARDS} == {
        *("overview", "consumers", "outbox", "deadlines", "deliveries", "database")
    }
    for file in DASHBOARDS:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels(file)]
        assert len(set(places)) == len(places)
        assert len({panel["id"] for panel in panels(file)}) == len(places)


def test_grafana_gets_each_dashboard_unchanged() -> None:
    maps = of_kind(example("standard"), "ConfigMap")
    assert {name.rpartition("-")[2] for name in maps} == {file.stem for file in DASHBOARDS}
    for file in DASHBOARDS:
        found = maps[f"muster-dashboard-{file.stem}"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["data"][f"muster-{file.name}"].rstrip() == file.read_text("utf-8").rstrip()


def test_prometheus_gets_every_rule_and_each_alert_its_runbook() -> None:
    found = _given(example("standard"))
    without = [{key: value for key, value in rule.items() if key != "annotations"} for rule in found]
    assert without == [{key: value for key, value in rule.items() if key != "annotations"} for rule in _rules()]
    for rule in found:
        if "alert" in rule:
            assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
            assert rule["annotations"]["summary"]


def test_a_runbook_may_be_elsewhere() -> None:
    wiki = {"enabled": True, "runbooks": "https://wiki.example.gov/muster/"}
    urls = {
        rule["annotations"]["runbook_url"]
        for rule in _given(render({"monitoring": {"rules": wiki}}))
        if "alert" in rule
    }
    assert "https://wiki.example.gov/muster/process-gone.md" in urls
    assert all(url.startswith("https://wiki.example.gov/muster/") and "//" not in url[8:] for url in urls)


def test_prometheus_scrapes_every_serving_pod_under_the_job_name_in_the_alerts() -> None:
    (monitor,) = of_kind(example("standard"), "PodMonitor").values()
    label = monitor["spec"]["jobLabel"]
    roles = set(monitor["spec"]["selector"]["matchExpressions"][0]["values"])
    (gone,) = (rule for rule in _rules() if rule.get("alert") == "MusterProcessGone")
    (job,) = re.findall(r'job=~"([^"]+)"', gone["expr"])
    for name, pod in pods(example("standard")):
        labels = pod["metadata"]["labels"]
        assert re.fullmatch(job, labels[label])
        assert (labels["muster/role"] in roles) == any("ports" in each for each in pod["spec"]["containers"]), name


def _rules() -> list[dict[str, Any]]:
    return [
        rule
        for name in ("muster.rules.yml", "slo.rules.yml")
        for group in yaml.safe_load((ALERTS / name).read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def _given(objects: tuple[Object, ...]) -> list[dict[str, Any]]:
    (given,) = of_kind(objects, "PrometheusRule").values()
    return [rule for group in given["spec"]["groups"] for rule in group["rules"]]
