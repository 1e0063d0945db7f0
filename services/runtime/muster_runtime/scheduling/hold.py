"""The hold on a service's deadlines, after its database has lost commits, until an operator releases them.

The facts are out of date, and a deadline that acts on them would, for example, end a term that was renewed. Whether
commits are lost shows only when the relay compares the topics with the database. So the facts are in doubt from a
restart of Postgres, or a failover, until it has, and during a hold.
"""

import asyncio
from datetime import datetime
from typing import NamedTuple

import structlog

from muster_runtime.clock import Clock
from muster_runtime.context import new_context
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE, Connection, Database, UnitOfWork
from muster_runtime.errors import Conflict, describe
from muster_runtime.observability import audit

# How long the relay waits for the hold that it begins.
BEGIN_SECONDS = 5.0

_log = structlog.get_logger(__name__)


async def held_since(connection: Connection) -> datetime | None:
    """Since when the service's deadlines are held; None if they are not."""
    since: datetime | None = await connection.fetchval("select deadlines_held_since from epoch")
    return since


async def are_held(connection: Connection) -> bool:
    """Whether the service's deadlines are held."""
    return await held_since(connection) is not None


async def are_facts_in_doubt(connection: Connection) -> bool:
    """Whether commits may be lost: deadlines are held, or the relay has not compared since the server started."""
    in_doubt: bool = await connection.fetchval("select facts_in_doubt()")
    return in_doubt


class Doubt(NamedTuple):
    """Since when the deadlines are held, if they are, and whether commits may be lost."""

    held_since: datetime | None
    in_doubt: bool

    def why_deadlines_wait(self, service: str) -> str | None:
        """Why none of the service's deadlines is handled, in plain words; None if they are."""
        if self.held_since is not None:
            since = f"deadlines are held since {self.held_since:%Y-%m-%dT%H:%M:%SZ}"
            order = "if the relay says that it was restored, raise its epoch first"
            return f"{since} (muster deadlines release {service}; {order})"
        if not self.in_doubt:
            return None
        return "deadlines wait: Postgres restarted or failed over, and the relay has not looked for lost commits yet"


async def find_doubt(connection: Connection) -> Doubt:
    """Whether and why no deadline is handled, in one query."""
    (row,) = await connection.fetch("select deadlines_held_since, facts_in_doubt() from epoch")
    return Doubt(*row)


class NotReleased(Conflict):
    """The database may still lack commits that are on the topics."""


async def begin(uow: UnitOfWork) -> bool:
    """Hold all deadlines of the service, also those that come due later. Returns False if they are held already."""
    begun: bool | None = await uow.connection.fetchval(
        "update epoch set deadlines_held_since = $1 where deadlines_held_since is null returning true", uow.now
    )
    return bool(begun)


async def begin_for_lost_commits(database: Database, clock: Clock, service: str) -> None:
    """Hold the deadlines because the relay has found that the database lacks commits, before the epoch is raised.

    If that fails, or takes long, it is only logged: the relay must say what it found, and soon looks again.
    """
    context = new_context(service, clock.now())
    try:
        async with asyncio.timeout(BEGIN_SECONDS), database.write(EVERY_AGENCY, context=context) as uow:
            if await begin(uow):
                audit.record(uow, command="HoldDeadlines", agency_id=EVERY_AGENCY, after={"held_since": uow.now})
    except (TimeoutError, *RETRYABLE) as error:
        _log.warning("deadlines_not_held", error=describe(error))


async def release(uow: UnitOfWork, reason: str) -> datetime | None:
    """Let the scheduler handle the deadlines again. Returns since when they were held; None if they were not.

    Raises NotReleased until the relay has compared the topics with the database, and finds nothing missing.
    """
    since = await held_since(uow.connection)
    if since is None:
        return None
    await uow.connection.execute("update epoch set deadlines_held_since = null")
    if await are_facts_in_doubt(uow.connection):  # without the hold, they are only as long as a lane has to compare
        raise NotReleased(
            "commits may still be lost: the relay has not found all topics and the database in agreement yet. If its "
            "readiness names a record, raise the epoch or pass the record first, as it says; otherwise, try again in a "
            "moment, once the relay runs and reaches Kafka"
        )
    audit.record(uow, command="ReleaseDeadlines", agency_id=EVERY_AGENCY, before={"held_since": since}, reason=reason)
    uow.wake()
    return since
