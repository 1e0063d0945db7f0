"""The hold on a service's deadlines: after a restore, none is handled until an operator releases them.

The restored facts are out of date, and a deadline that acts on them would, for example, end a term that was renewed.
"""

from datetime import datetime

from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.observability import audit


async def held_since(connection: Connection) -> datetime | None:
    """Since when the service's deadlines are held; None if they are not."""
    since: datetime | None = await connection.fetchval("select deadlines_held_since from epoch")
    return since


async def begin(uow: UnitOfWork) -> None:
    """Hold all deadlines of the service, also those that come due later. If they are held already, that continues."""
    await uow.connection.execute(
        "update epoch set deadlines_held_since = $1 where deadlines_held_since is null", uow.now
    )


async def release(uow: UnitOfWork, reason: str) -> datetime | None:
    """Let the scheduler handle the deadlines again. Returns since when they were held; None if they were not."""
    since = await held_since(uow.connection)
    if since is None:
        return None
    await uow.connection.execute("update epoch set deadlines_held_since = null")
    audit.record(uow, command="ReleaseDeadlines", agency_id=EVERY_AGENCY, before={"held_since": since}, reason=reason)
    uow.wake()
    return since
