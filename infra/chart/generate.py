"""Writes what the chart copies from elsewhere: `python -m infra.chart.generate`. With --check, says what is old.

A chart reads no file outside its folder, so it has copies: the facts of the code that its templates need, and the
alerts. The README has a table of its values.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

from muster_contracts import topics
from muster_contracts.topics import SERVICES
from muster_operator.access.acls import Acl, acls_of_services
from muster_runtime.service import Service

ROOT = Path(__file__).parents[2]
CHART = ROOT / "infra" / "chart" / "muster"
FACTS = CHART / "facts.yaml"

# The longest time from SIGTERM to a process's end, by role.
_DRAIN_SECONDS = dict.fromkeys(("all", "api", "consumer", "relay", "scheduler", "worker", "operations"), 20)

_HEADER = "# What the templates know of the code. Generated: python -m infra.chart.generate\n"


def facts() -> dict[str, Any]:
    """Which roles each service has, which topics there are and who may use them, and how long a process drains."""
    return {
        "drain_seconds": dict(_DRAIN_SECONDS),
        "services": {name: _service(built(name)) for name in SERVICES},
        "topics": {
            topic.name: {"partitions": topic.partitions, "config": topic.settings, "sandbox": topic.owner == "sandbox"}
            for topic in topics().values()
        },
        "acls": {name: [_rule(acl) for acl in _acls(sandbox=False) if acl.principal == name] for name in SERVICES},
        "sandbox_acls": {
            name: [
                _rule(acl) for acl in sorted({*_acls(sandbox=True)} - {*_acls(sandbox=False)}) if acl.principal == name
            ]
            for name in SERVICES
        },
    }


def built(name: str) -> Service:
    """A service as its bootstrap describes it, with the settings of a sandbox."""
    bootstrap = importlib.import_module(f"muster_{name}.bootstrap")
    settings = getattr(importlib.import_module(f"muster_{name}.settings"), f"{name.capitalize()}Settings")
    service: Service = bootstrap.build(settings(environment="sandbox"))
    return service


def _service(service: Service) -> dict[str, Any]:
    duties = {
        "api": True,
        "consumer": bool(service.subscriptions),
        "relay": bool(service.produces),
        "scheduler": True,  # each has expired rows to delete
        "worker": bool(service.workers),
    }
    return {
        "roles": [role for role, has in duties.items() if has],
        "reads": sorted({event.topic for event in service.subscriptions}),
    }


def _acls(*, sandbox: bool) -> list[Acl]:
    return acls_of_services(topics().values(), principal="{name}", sandbox=sandbox)


def _rule(acl: Acl) -> dict[str, str]:
    return {"kind": acl.kind.value, "name": acl.name, "operation": acl.operation.value}


def documents() -> dict[Path, str]:
    """Every generated file, as it should be."""
    return {FACTS: _HEADER + yaml.safe_dump(facts(), sort_keys=False, width=120)}


def main() -> None:
    """Write the files, or with --check, name those that are old."""
    check = "--check" in sys.argv[1:]
    for file, text in documents().items():
        if file.exists() and file.read_text("utf-8") == text:
            continue
        if check:
            sys.exit(f"{file.relative_to(ROOT)} is old: python -m infra.chart.generate")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
