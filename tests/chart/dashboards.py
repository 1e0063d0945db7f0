"""The dashboards' Prometheus queries. As a program, it prints them as rules, whose syntax promtool checks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.chart.generate import CHART

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))


def panels(file: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard."""
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["panels"]
    return found


def expressions(file: Path, namespace: str = ".*") -> Iterator[str]:
    """The panels' queries, with a value in place of each variable."""
    values = {"$namespace": namespace, "$service": ".*", "$__rate_interval": "5m"}
    for panel in panels(file):
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            yield expression


if __name__ == "__main__":
    asked = [expression for file in DASHBOARDS for expression in expressions(file)]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    print(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
