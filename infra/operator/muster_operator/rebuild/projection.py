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
    """Where the live projection differs from the topics, and the obstacle, if any, to putting it right from them.

    People are told by their references alone.
    """

    key: str
    found: str
    obstacle: str = ""


class Projection(Protocol):
    """A projection that is rebuilt next to the live one."""

    records: int
    unread: int  # of the records, those that could not be read

    async def replay(self) -> None:
        """Apply what the topics hold from where they were read before, in order, up to their present end."""

    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from what was replayed."""

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Put what was replayed in the place of the live one, with an audit; answer how they differed.

        Where there is an obstacle the live one stays.
        """


@asynccontextmanager
async def correcting(target: Target, service: str) -> AsyncIterator[Database]:
    """A service's database, as one that corrects its rows sees it.

    A correction is dated as the newest fact is: in a sandbox this machine's time may be years behind.
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
