"""Generates the chart's derived files: `make chart`.

A chart cannot read files outside its folder, so it has copies of the alerts and of the facts of the code that its
templates need. Its schema and the README's table come from values.yaml.
"""

import importlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from infra.chart import values
from muster_contracts import topics
from muster_contracts.topics import SERVICES
from muster_operator.access.acls import Acl, acls_of_services
from muster_runtime.process.drain import DRAIN_SECONDS
from muster_runtime.process.roles import needed_roles
from muster_runtime.secrets import PREFIX
from muster_runtime.service import Service

ROOT = Path(__file__).parents[2]
CHART = ROOT / "infra" / "chart" / "muster"
FACTS = CHART / "facts.yaml"
README = CHART.parent / "README.md"
ALERTS = ROOT / "infra" / "alerts"

# The line above the table in the README.
_TABLE = "<!-- Generated from values.yaml: make chart -->\n"

_HEADER = "# The facts of the code that the templates use. Generated: make chart\n"


def facts() -> dict[str, Any]:
    """Each service's schema, roles, and secrets, the topics and their ACLs, and each role's drain time in seconds.

    Also the default resources of a role, by which a template sees whether a site has set others.
    """
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    return {
        "default_resources": defaults["roles"]["all"]["resources"],
        "drain_seconds": {str(role): seconds for role, seconds in DRAIN_SECONDS.items()},
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
    """A service, built by its bootstrap with a sandbox's settings."""
    bootstrap = importlib.import_module(f"muster_{name}.bootstrap")
    settings = getattr(importlib.import_module(f"muster_{name}.settings"), f"{name.capitalize()}Settings")
    service: Service = bootstrap.build(settings(environment="sandbox"))
    return service


def _service(service: Service) -> dict[str, Any]:
    return {
        "schema": {"min": service.schema.minimum, "head": service.schema.head},
        "roles": [str(role) for role in needed_roles(service)],
        "reads": sorted({event.topic for event in service.subscriptions}),
        "secrets": [
            f"{PREFIX}{name.upper()}"
            for name, field in type(service.settings).model_fields.items()
            if field.annotation is SecretStr and name != "postgres_owner_dsn"
        ],
    }


def _acls(*, sandbox: bool) -> list[Acl]:
    return acls_of_services(topics().values(), principal="{name}", sandbox=sandbox)


def _rule(acl: Acl) -> dict[str, str]:
    return {"kind": acl.kind.value, "name": acl.name, "operation": acl.operation.value}


def documents() -> dict[Path, str]:
    """The content of every generated file."""
    described = (CHART / "values.yaml").read_text("utf-8")
    readme, _, _ = README.read_text("utf-8").partition(_TABLE)
    return {
        FACTS: _HEADER + yaml.safe_dump(facts(), sort_keys=False, width=120),
        CHART / "values.schema.json": values.schema(described),
        README: readme + _TABLE + values.table(described),
        **{CHART / "rules" / file.name: file.read_text("utf-8") for file in sorted(ALERTS.glob("*.yml"))},
    }


def main() -> None:
    """Write the files whose content has changed."""
    for file, text in documents().items():
        if not file.exists() or file.read_text("utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
