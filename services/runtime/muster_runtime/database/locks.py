"""The agencies' locks: taken by the first statement of a transaction that writes, which may read more under them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import asyncpg

from muster_runtime.clock import MAX_SKEW, Clock, skew
from muster_runtime.database.connections import Connection
from muster_runtime.errors import ClockSkewed

# How long a command waits for a lock, at first and in each later round, and the longest pause between two rounds.
FIRST_ROUND_SECONDS = 0.5
ROUND_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lock:
    """A statement that takes the agencies' locks.

    Its first two parameters are the agencies and the process's time; `arguments` are the others. Each of its rows has
    the columns of lock_agencies, and whatever else it reads once the locks are held. With `patience_seconds`, the
    transaction waits no longer than that for any lock.
    """

    statement: str = "select latest, entered, locked from lock_agencies($1, $2)"
    arguments: tuple[object, ...] = ()
    patience_seconds: float | None = None


LOCK = Lock()


async def ask_for_skew(connection: Connection, clock: Clock, limit: timedelta = MAX_SKEW) -> str | None:
    """How a process's clock and its database's disagree; None where they may agree, or the clock is virtual."""
    if clock.virtual:
        return None
    sent = clock.now()
    server = await connection.fetchval("select clock_timestamp()")
    return skew(sent, server, server, clock.now(), limit)


async def take(
    connection: Connection, clock: Clock, agencies: Sequence[str], lock: Lock
) -> tuple[datetime, Sequence[asyncpg.Record]]:
    """Take the locks, and answer the instant of the transaction and the statement's rows. Raises ClockSkewed."""
    if lock.patience_seconds is not None:
        await connection.execute("select set_config('lock_timeout', $1, true)", f"{lock.patience_seconds * 1000:.0f}ms")
    sent = clock.now()
    rows = await connection.fetch(lock.statement, list(agencies), sent, *lock.arguments)
    first = rows[0]
    if not clock.virtual and (reason := skew(sent, first["entered"], first["locked"], clock.now())):
        raise ClockSkewed(reason)
    return first["latest"], rows


async def in_rounds(begin: Callable[[asyncio.Timeout], Awaitable[T]], seconds: float) -> T:
    """Begin a transaction that takes locks, for so many seconds, with pauses in which it uses no connection.

    Otherwise, commands for a few agencies whose locks are held would take all connections of their pool.
    """
    until = time.monotonic() + seconds
    wait, pause = FIRST_ROUND_SECONDS, ROUND_SECONDS
    while True:
        patience = asyncio.timeout(wait)
        try:
            return await begin(patience)
        except TimeoutError:
            if not patience.expired() or time.monotonic() > until:
                raise
        await asyncio.sleep(pause)
        wait, pause = ROUND_SECONDS, min(2 * pause, MAX_PAUSE_SECONDS)


async def free(connection: Connection, agencies: Iterable[str]) -> set[str]:
    """Those of the agencies whose locks nobody holds at this moment."""
    rows = await connection.fetch(
        """
        select agency_id
        from unnest($1::text[]) as agency_id
        where pg_try_advisory_xact_lock(hashtextextended(current_schema() || '/' || agency_id, 0))
        """,
        list(agencies),
    )
    return {row["agency_id"] for row in rows}


async def latest(connection: Connection, agencies: Iterable[str]) -> dict[str, datetime]:
    """The instant of the last transaction of each of the agencies that had one."""
    rows = await connection.fetch(
        "select agency_id, latest from agency_instant where agency_id = any($1::text[])", list(agencies)
    )
    return {row["agency_id"]: row["latest"] for row in rows}
