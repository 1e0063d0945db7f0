"""Prints every metric of the four services in the format of `/metrics`, whether or not it has a value yet.

A real page omits metrics that have no value yet, so a check of it would miss them. Here each has at least one sample.
"""

import importlib
import pkgutil
import sys

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from muster_contracts import SERVICES


def page() -> bytes:
    """The metrics of all four services; a metric without label values gets example values."""
    _import_services()
    for metric in list(REGISTRY._collector_to_names):
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*("example" for _ in metric._labelnames))
    return generate_latest()


def samples() -> set[str]:
    """The names of the samples, without giving any metric a value."""
    _import_services()
    suffixes = {"counter": ["_total"], "histogram": ["_count", "_sum", "_bucket"]}
    return {metric.name + suffix for metric in REGISTRY.collect() for suffix in suffixes.get(metric.type, [""])}


def _import_services() -> None:
    for service in SERVICES:
        package = importlib.import_module(f"muster_{service}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


if __name__ == "__main__":
    sys.stdout.buffer.write(page())
