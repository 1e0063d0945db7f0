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


def expressions(file: Path) -> Iterator[str]:
    """The panels' queries, with a value in place of each variable."""
    for panel in panels(file):
        for target in panel["targets"]:
            yield target["expr"].replace("$service", ".*").replace("$__rate_interval", "5m")


if __name__ == "__main__":
    asked = [expression for file in DASHBOARDS for expression in expressions(file)]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    print(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
