"""The alarms: each has its runbook, and asks only for metrics that there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from muster_runtime import telemetry

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "infra" / "runbooks"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "infra" / "alerts" / "muster.rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
# What Prometheus itself knows of a target.
OF_PROMETHEUS = {"up"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_has_a_runbook_that_names_it(rule: dict[str, Any]) -> None:
    runbook = ROOT / rule["annotations"]["runbook"]
    assert runbook.parent == RUNBOOKS
    assert f"`{rule['alert']}`" in runbook.read_text("utf-8")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = {sample for metric in REGISTRY.collect() for sample in _names(metric)}
    asked = set(re.findall(r"\b(?:muster_\w+|up)\b", rule["expr"]))
    assert asked
    assert asked - OF_PROMETHEUS <= known
    for bound in re.findall(r'le="([^"]+)"', rule["expr"]):
        bounds = telemetry.DEADLINE_LATENESS_SECONDS._upper_bounds
        assert float(bound) in bounds


def test_every_runbook_is_listed() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (RUNBOOKS / "README.md").read_text("utf-8")))
    assert listed == {file.name for file in RUNBOOKS.glob("*.md")} - {"README.md"}


def _names(metric: Any) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_count", "_sum", "_bucket"]}.get(metric.type, [""])
    return {metric.name + suffix for suffix in suffixes}
