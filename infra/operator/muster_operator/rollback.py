"""`muster rollback-check`: checks whether another release's code can run on the current databases."""

from dataclasses import asdict
from typing import Annotated, Any

import asyncpg
import typer
from rich.markup import escape

from muster_contracts import SERVICES
from muster_operator.clients import client_of_postgres
from muster_operator.failures import BadInput
from muster_operator.options import ServicesOption
from muster_operator.output import Answer, table
from muster_operator.reconcile.streams import within
from muster_operator.releases import Verdict, judge, read_releases
from muster_operator.target import Target, on_target


@on_target(asks=False)
async def rollback_check(
    target: Target,
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="The release to roll back to.")],
    services: ServicesOption = None,
) -> Answer:
    """Check whether a release's code can run on the current databases. The exit status is 1 if it cannot.

    It compares the migrations in each service's schema with those that the release's code needs, and changes nothing.
    Rolling back means running the old code: no migration is undone.
    """
    target.require("admin_dsn")
    releases = read_releases()
    if to not in releases:
        raise BadInput(f"--to {to}: must be one of {', '.join(releases)}")
    async with client_of_postgres():
        found = [
            judge(releases, to, service, await within(target.admin_dsn, service, _applied))
            for service in services or SERVICES
        ]
    rows = [(each.service, each.database or "none", _told(each)) for each in found]
    return Answer(
        {"to": to, "services": [asdict(each) for each in found]},
        table(("service", "schema", f"can {to} run?"), rows),
        ok=all(each.can_run for each in found),
    )


def _told(verdict: Verdict) -> str:
    if not verdict.can_run:
        return escape(f"no: {verdict.reason}")
    return f"yes; it does not know {', '.join(verdict.ahead)}, which is harmless" if verdict.ahead else "yes"


async def _applied(connection: "asyncpg.Connection[Any]") -> list[str]:
    """The applied migrations of a schema; none if it was never migrated."""
    if not await connection.fetchval("select to_regclass('schema_migrations') is not null"):
        return []
    return [row["version"] for row in await connection.fetch("select version from schema_migrations")]
