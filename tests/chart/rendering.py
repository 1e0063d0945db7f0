"""The chart as Helm renders it, once for each set of values, and helpers for the rendered objects."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from infra.chart.generate import CHART

Object = dict[str, Any]
Values = Mapping[str, Any]

RELEASE = NAMESPACE = "muster"
EXAMPLES = {file.stem: file for file in sorted((CHART.parent / "examples").glob("*.yaml"))}

# The minimal values that render: those without a default, and the profile with the fewest objects.
LEAST: Values = {
    "profile": "small",
    "kafka": {"bootstrap": "kafka.example.gov:9093"},
    "oidc": {"issuer": "https://login.example.gov"},
    "smtp": {"host": "mail.example.gov", "from": "muster@example.gov", "operators": "operators@example.gov"},
    "networkPolicy": {
        flow: {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]}
        for flow in ("postgres", "kafka", "issuer", "smtp", "tracing")
    },
}


class Refused(Exception):
    """Helm renders nothing; the message says why."""


def example(name: str) -> tuple[Object, ...]:
    """The objects rendered from an example's values."""
    return _rendered(EXAMPLES[name].read_text("utf-8"))


def render(values: Values, **more: Any) -> tuple[Object, ...]:
    """The objects rendered from the minimal values merged with these. Raises Refused."""
    return _rendered(json.dumps(merged(LEAST, values)), **more)


@cache
def _rendered(values: str, *, name: str = RELEASE, is_upgrade: bool = False, chart: Path = CHART) -> tuple[Object, ...]:
    try:
        files = _chart(chart).render(
            yaml.safe_load(values), name=name, namespace=NAMESPACE, is_upgrade=is_upgrade, is_install=not is_upgrade
        )
    except helm_python.HelmError as error:
        raise Refused(str(error)) from None
    texts = [text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt")]
    return tuple(found for text in texts for found in yaml.load_all(text, _LOADER) if found)


@cache
def _chart(folder: Path) -> helm_python.Chart:
    return helm_python.Chart.load(folder)


def merged(below: Values, above: Values) -> dict[str, Any]:
    """Values overridden by others, as Helm merges them."""
    both = deepcopy(dict(below))
    for key, value in above.items():
        under = both.get(key)
        nested = isinstance(value, Mapping) and isinstance(under, Mapping)
        both[key] = merged(under, value) if nested else value  # type: ignore[arg-type]
    return both


def of_kind(objects: tuple[Object, ...], kind: str) -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """The name and the pod (metadata and spec) of each object that runs one."""
    for found in objects:
        match found["kind"]:
            case "Deployment" | "Job":
                yield found["metadata"]["name"], found["spec"]["template"]
            case "Pod":
                yield found["metadata"]["name"], found


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, including init containers."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def leaves(found: Any) -> Iterator[Any]:
    """Every value inside an object, at any depth."""
    if isinstance(found, Mapping | list | tuple):
        for each in found.values() if isinstance(found, Mapping) else found:
            yield from leaves(each)
    else:
        yield found


def environment(container: Object) -> dict[str, str]:
    """A container's environment variables."""
    return {each["name"]: each["value"] for each in container["env"]}


# Each run reads a thousand objects.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
