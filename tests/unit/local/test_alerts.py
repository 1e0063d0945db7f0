"""The alerts: each has its runbook and queries only metrics that exist. Every reason for unreadiness has a row."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from muster_runtime.database import commits
from muster_runtime.http import health
from muster_runtime.messaging import breaker, kafka_topics, restore_guard
from muster_runtime.messaging.consumer import member, pausing, polling, progress, refused
from muster_runtime.observability import telemetry
from muster_runtime.process import monitor
from tests.support.metrics_page import samples

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "infra" / "runbooks"
ALERTS = ROOT / "infra" / "alerts"
ALL_RULES: list[dict[str, Any]] = [
    rule
    for file in sorted(ALERTS.glob("*.yml"))
    for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
RULES = [rule for rule in ALL_RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
# What Prometheus itself records about a target.
OF_PROMETHEUS = {"up"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_has_a_runbook_that_names_it(rule: dict[str, Any]) -> None:
    runbook = ROOT / rule["annotations"]["runbook"]
    assert runbook.parent == RUNBOOKS
    assert f"`{rule['alert']}`" in runbook.read_text("utf-8")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]


def test_a_rule_queries_metrics_and_bounds_that_exist() -> None:
    known = samples() | RECORDED
    for rule in ALL_RULES:
        asked = set(re.findall(r"\b(?:(?:muster[_:]|process_)[\w:]+|up)\b", rule["expr"]))
        assert asked or rule["expr"].startswith("vector("), rule
        assert asked - OF_PROMETHEUS <= known, rule
        for bound in re.findall(r'le="([^"]+)"', rule["expr"]):
            for histogram in (telemetry.DEADLINE_LATENESS_SECONDS, telemetry.HTTP_REQUEST_SECONDS):
                assert float(bound) in histogram._upper_bounds


def test_a_rule_keeps_the_releases_of_different_namespaces_apart() -> None:
    for rule in ALL_RULES:
        labels = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
        assert all("namespace" in each or each == "slo" for each in labels), rule


def test_every_alarm_is_tested_where_it_must_fire_and_where_it_must_not() -> None:
    tried = [
        (case["alertname"], bool(case["exp_alerts"]))
        for file in (ALERTS / "tests").glob("*.yml")
        for group in yaml.safe_load(file.read_text("utf-8"))["tests"]
        for case in group["alert_rule_test"]
    ]
    assert {(rule["alert"], sounds) for rule in RULES for sounds in (True, False)} == set(tried)


def test_every_runbook_is_listed() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (RUNBOOKS / "README.md").read_text("utf-8")))
    assert listed == {file.name for file in RUNBOOKS.glob("*.md")} - {"README.md"}


def test_every_reason_for_unreadiness_has_a_row() -> None:
    reasons = set(_reasons())
    assert len(reasons) > 12, reasons  # a search that finds none proves nothing
    rows = [_pattern(row) for row in _rows()]
    assert {reason for reason in reasons if not any(re.match(row, reason) for row in rows)} == set()


@pytest.mark.parametrize(
    ("row", "module", "said"),
    [
        (
            "the relay cannot publish: … it was restored; raise its epoch",
            restore_guard,
            "it was restored; raise its epoch",
        ),
        ("the consumer cannot apply: the breaker is open", breaker, "the breaker is open"),
        ("the topic … has … partitions and needs …", kafka_topics, "partitions and needs"),
        (commits.STANDBY_GONE, commits, "Postgres waits for"),
    ],
)
def test_a_cause_that_waits_for_an_operator_has_its_own_row(row: str, module: ModuleType, said: str) -> None:
    assert row in _rows()
    assert said in inspect.getsource(module)


def _rows() -> list[str]:
    text = (RUNBOOKS / "not-ready.md").read_text("utf-8")
    return [row.split(" | ")[0] for row in re.findall(r"^\| (.+) \|$", text, flags=re.MULTILINE)][1:]


def _pattern(row: str) -> str:
    return ".+".join(re.escape(part) for part in row.replace("anything else", "…").split("…"))


def _reasons() -> Iterator[str]:
    """The texts added to lists of reasons, directly or by functions called for them; an ellipsis stands for values."""
    functions = [
        node
        for module in (monitor, kafka_topics, member, pausing, polling, progress, refused, health)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    said = [function for function in functions if re.search(r"\breasons\b|\bfound\.", ast.unparse(function))]
    called = {
        node.attr
        for function in said
        for addition in ast.walk(function)
        if isinstance(addition, ast.AugAssign)
        for node in ast.walk(addition.value)
        if isinstance(node, ast.Attribute)
    }
    for function in functions:
        if function in said or function.name in called:
            for node in ast.walk(function):
                match node:
                    case ast.List(elts=texts) | ast.Call(func=ast.Attribute(attr="append"), args=texts):
                        yield from filter(None, map(_text, texts))
                    case ast.ListComp(elt=text) | ast.GeneratorExp(elt=text) | ast.DictComp(value=text):
                        yield from filter(None, [_text(text)])


def _text(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "…" for part in parts)
    return None
