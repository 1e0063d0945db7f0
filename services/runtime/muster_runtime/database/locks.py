"""The agencies' locks: taken by the first statement of a transaction that writes, which may read more under them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import asyncpg

from muster_runtime.clock import MAX_SKEW, Clock, skew
from muster_runtime.database.connections import Connection
from muster_runtime.errors import ClockSkewed

# How long a command waits for a lock, at first and in each later round. A busy agency's transactions take its lock from
# one another, so only a long wait gets it.
FIRST_ROUND_SECONDS = 0.5
ROUND_SECONDS = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lock:
    """A statement that takes the agencies' locks.

    Its first three parameters are the agencies, the process's time, and whether that continues during the wait for
    the locks; `arguments` are the others. Each of its rows has the columns of lock_agencies, and whatever else it reads
    once the locks are held. With `patience_seconds`, the transaction waits no longer than that for any lock.
    """

    statement: str = "select latest, entered, locked from lock_agencies($1, $2, $3)"
    arguments: tuple[object, ...] = ()
    patience_seconds: float | None = None


LOCK = Lock()

# For a transaction that dates no fact: it has the process's time, and its agencies keep their instants. With LOCK, they
# all get the latest one, even that of an agency ahead of the clock.
UNDATED_LOCK = Lock(
    """
    select
        $2::timestamptz as latest, clock_timestamp() as entered,
        lock_agencies($1::text[]), clock_timestamp() as locked, $3::boolean as moving
    """
)


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
    rows = await connection.fetch(lock.statement, list(agencies), sent, not clock.virtual, *lock.arguments)
    first = rows[0]
    if not clock.virtual and (reason := skew(sent, first["entered"], first["locked"], clock.now())):
        raise ClockSkewed(reason)
    return first["latest"], rows


class RoundOver(TimeoutError):
    """A round of waiting for locks ended without them."""


@asynccontextmanager
async def one_round(seconds: float | None) -> AsyncIterator[None]:
    """Raise RoundOver if the block takes longer; None: only the session limits it."""
    try:
        async with asyncio.timeout(seconds) as timeout:
            yield
    except TimeoutError as error:
        if timeout.expired():
            raise RoundOver from error
        raise


async def in_rounds(begin: Callable[[float], Awaitable[T]], seconds: float, waiters: asyncio.Semaphore) -> T:
    """Begin a transaction that takes locks, in rounds for so many seconds. `begin` gets the seconds of its round.

    After the first one, only as many callers as there are `waiters` try at once; the others use no connection.
    Otherwise, commands for a few agencies whose locks are held would take all connections of their pool.
    Raises TimeoutError after the last round.
    """
    limit = FIRST_ROUND_SECONDS
    until = time.monotonic() + seconds
    async with AsyncExitStack() as turn:
        while True:
            try:
                return await begin(limit)
            except RoundOver as over:
                if time.monotonic() > until:
                    raise TimeoutError from over
            await turn.aclose()
            async with asyncio.timeout(until + ROUND_SECONDS - time.monotonic()):
                await turn.enter_async_context(waiters)
            limit = ROUND_SECONDS


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
