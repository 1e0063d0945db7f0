"""Measurements: saved in build/cluster.jsonl, and printed after the tests."""

import json

from tests.cluster.kube import ROOT

FILE = ROOT / "build" / "cluster.jsonl"

_figures: list[str] = []


def record(what: str, value: str) -> None:
    """Save a measurement with its unit."""
    _figures.append(f"{what}: {value}")
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "value": value}) + "\n")


def recorded() -> list[str]:
    return list(_figures)
