"""Rebuilds a service's projection as the worker role, and prints the result of the command `rebuild`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError
from asyncpg.exceptions import TargetServerAttributeNotMatched
from rich.markup import escape
from rich.table import Table

from muster_runtime.clock import SandboxClock
from muster_runtime.console import console
from muster_runtime.database import sessions
from muster_runtime.database.transactions import Database
from muster_runtime.exit_statuses import BAD_INPUT, REFUSED, TIMED_OUT, UNREACHABLE, CommandFailed
from muster_runtime.messaging.connection import CertificatesUnusable, KafkaConnection, unreachable
from muster_runtime.projection import Difference, NotPublished, Projection
from muster_runtime.service import Service
from muster_runtime.text import count


@dataclass(frozen=True)
class Outcome:
    """What was read, how the live projection differed, and which differences remain."""

    projection: str
    records: int
    unread: int
    differences: Sequence[Difference]
    remaining: Sequence[Difference]

    def data(self) -> dict[str, Any]:
        """What --json prints."""
        return {
            "projection": self.projection,
            "records": self.records,
            "unread": self.unread,
            "differences": [asdict(each) for each in self.differences],
            "swapped": len(self.differences) - len(self.remaining),
        }

    def show(self) -> None:
        """Print it as text."""
        out = console()
        out.print(f"{count(self.records, 'record')} on the topics; {self.unread:,} could not be read")
        if not self.differences:
            out.print("The projection is correct.")
            return
        table = Table("agency", self.projection, "result", box=None, pad_edge=False)
        for each in self.differences:
            table.add_row(each.key, escape(each.found), escape(self._result(each)))
        out.print(table)
        left = len(self.remaining)
        remain = f"[red]{count(left, 'difference')} {'remains' if left == 1 else 'remain'}[/red]"
        out.print(remain if left else "The rebuilt projection is in place.")

    def _result(self, difference: Difference) -> str:
        if difference.obstacle:
            return f"cannot be corrected: {difference.obstacle}"
        return "not corrected" if difference in self.remaining else "corrected"


async def rebuild(service: Service, name: str, reason: str | None) -> Outcome:
    """Rebuild a projection and compare it with the live one; with a reason, replace that. Raises CommandFailed."""
    try:
        async with opened(service, name) as projection:
            await projection.replay()
            differences = await (projection.compare() if reason is None else projection.swap(reason))
            remaining = differences if reason is None else [each for each in differences if each.obstacle]
            return Outcome(f"{service.name}.{name}", projection.records, projection.unread, differences, remaining)
    except NotPublished as error:
        raise CommandFailed(str(error), TIMED_OUT) from None
    except TargetServerAttributeNotMatched:
        raise CommandFailed("Postgres is a standby, which may lag behind: name its primary", BAD_INPUT) from None
    except CertificatesUnusable as error:
        raise CommandFailed(str(error), BAD_INPUT) from None
    except KafkaError as error:
        refusal = await KafkaConnection(service.settings).refusal(error)
        raise CommandFailed(refusal or unreachable(error), REFUSED if refusal else UNREACHABLE) from None
    except (*sessions.REFUSED, asyncpg.InsufficientPrivilegeError) as error:
        raise CommandFailed(f"Postgres refused: {error}", REFUSED) from None
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandFailed(f"Postgres cannot be queried: {error or type(error).__name__}", UNREACHABLE) from None


@asynccontextmanager
async def opened(service: Service, name: str) -> AsyncIterator[Projection]:
    """A projection of the service, ready to be rebuilt. Raises CommandFailed, and whatever the clients raise.

    A correction gets the time of the newest fact, because a sandbox's time may be years ahead of the system clock.
    """
    settings = service.settings
    if name not in service.projections:
        known = ", ".join(service.projections) or "none"
        raise CommandFailed(f"{name!r} is not a projection of {service.name}; those are: {known}", BAD_INPUT)
    for setting, value in (
        ("MUSTER_POSTGRES_WORKER_DSN", settings.postgres_worker_dsn.get_secret_value()),
        ("MUSTER_KAFKA_BOOTSTRAP", settings.kafka_bootstrap),
    ):
        if not value:
            raise CommandFailed(f"{setting} is not set", BAD_INPUT)
    clock = SandboxClock()
    database = await Database(settings.postgres_worker_dsn, service.name, clock, size=2).open()
    try:
        async with database.connection() as connection:
            latest = await connection.fetchval("select max(latest) from agency_instant")
        if latest is not None:
            clock.move(latest)
        async with service.projections[name](settings, database) as projection:
            yield projection
    finally:
        await database.close()
