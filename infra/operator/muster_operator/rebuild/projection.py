"""The interface of a projection that can be rebuilt."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from muster_operator.target import Target
from muster_runtime.clock import SandboxClock
from muster_runtime.context import Context
from muster_runtime.database.transactions import Database

# The actor of corrections in the audit trail.
CONTEXT = Context(actor="muster rebuild", correlation_id="")


@dataclass(frozen=True)
class Difference:
    """A difference of the live projection from the topics, and the obstacle, if any, to correcting it.

    It names people only by their references.
    """

    key: str
    found: str
    obstacle: str = ""


class Projection(Protocol):
    """A projection that is rebuilt next to the live one."""

    records: int
    unread: int  # of the records, those that could not be read

    async def replay(self) -> None:
        """Apply the topics' records in order, from where the last call stopped to their present ends."""

    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from what was replayed."""

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Replace the live projection with the replayed one, with an audit row. Returns how they differed.

        If there is an obstacle, the live projection stays as it is.
        """


@asynccontextmanager
async def correcting(target: Target, service: str) -> AsyncIterator[Database]:
    """A service's database, as one that corrects its rows sees it.

    A correction gets the time of the newest fact, because a sandbox's time may be years ahead of the machine's.
    """
    clock = SandboxClock()
    database = await Database.connect(target.admin_dsn, service, clock, size=1)
    try:
        latest = await database.pool.fetchval("select max(latest) from agency_instant")
        if latest is not None:
            clock.move(latest)
        yield database
    finally:
        await database.close()
