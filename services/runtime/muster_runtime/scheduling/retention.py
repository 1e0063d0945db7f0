"""Retention: deletes expired rows in small batches, by the runtime's clock.

Each batch is a separate transaction. It takes no agency's lock, so no command waits for it. Its own lock lets one
process purge at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from muster_runtime.clock import Clock
from muster_runtime.context import new_context
from muster_runtime.database.transactions import RETRYABLE, Connection, Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.observability.telemetry import PURGE_OVERDUE_SECONDS, PURGED

# Rows per transaction, and the pause after it: at most about 20,000 rows per second.
BATCH_ROWS = 1_000
PAUSE_SECONDS = 0.05

# The least time between rounds, so that a busy table is not queried for every expiring row.
ROUND = timedelta(hours=1)

_RETRY_SECONDS = 5.0

# The lock of a batch; no agency has this ID.
_LOCK = "purge"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Retention:
    """How long the rows of `table` are kept.

    `oldest` returns the instant from which the oldest row's retention counts. `purge` deletes rows kept since a given
    instant or earlier, oldest first and up to a limit, and returns how many it deleted.
    """

    table: str
    keep: timedelta
    oldest: Callable[[Connection], Awaitable[datetime | None]]
    purge: Callable[[Connection, datetime, int], Awaitable[int]]


def rows_since(table: str, column: str, keep: timedelta) -> Retention:
    """The retention of rows by an instant in an indexed column."""

    async def oldest(connection: Connection) -> datetime | None:
        instant: datetime | None = await connection.fetchval(f"select min({column}) from {table}")  # noqa: S608
        return instant

    async def purge(connection: Connection, before: datetime, limit: int) -> int:
        # The second condition excludes a row whose instant changes meanwhile.
        purged: int = await connection.fetchval(
            f"""
            with purged as (
                delete from {table}
                where
                    ctid = any(array(select ctid from {table} where {column} <= $1 order by {column} limit $2))
                    and {column} <= $1
                returning 1
            )

            select count(*) from purged
            """,  # noqa: S608
            before,
            limit,
        )
        return purged

    return Retention(table, keep, oldest, purge)


class Purger:
    """Purges the tables of one service."""

    def __init__(
        self, database: Database, wakeup: Wakeup, clock: Clock, retentions: Sequence[Retention], service: str
    ) -> None:
        self._database = database
        self._wakeup = wakeup
        self._clock = clock
        self._retentions = retentions
        self._service = service

    async def run(self) -> None:
        """Purge until canceled."""
        while True:
            started_at = self._clock.now()
            try:
                due_at = [await self._purge(retention) for retention in self._retentions]
            except RETRYABLE as error:
                _log.warning("purge_retried", error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            again_at = max(min(due_at), started_at + ROUND)
            while started_at <= self._clock.now() < again_at:  # the clock may be set back
                await self._wakeup.wait(again_at)

    async def _purge(self, retention: Retention) -> datetime:
        """Delete expired rows. Returns when the next row expires."""
        purged = 0
        due_at = await self._look(retention)
        while due_at <= self._clock.now():  # otherwise write nothing: a sandbox where nothing happened has no past
            batch = await self._purge_batch(retention)
            purged += batch
            due_at = await self._look(retention)
            if batch < BATCH_ROWS:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        if purged:
            _log.info("rows_purged", table=retention.table, rows=purged)
        return due_at

    async def _purge_batch(self, retention: Retention) -> int:
        now = self._clock.now()
        context = new_context(self._service, now)
        async with self._database.write(_LOCK, context=context) as uow:
            # Uses the clock, not uow.now: after the clock is set back, uow.now stays ahead and would purge early.
            batch = await retention.purge(uow.connection, now - retention.keep, BATCH_ROWS)
        PURGED.labels(self._service, retention.table).inc(batch)
        return batch

    async def _look(self, retention: Retention) -> datetime:
        """When the oldest row expires. Also sets the gauge of how overdue that is."""
        async with self._database.connection() as connection:
            oldest = await retention.oldest(connection)
        now = self._clock.now()
        due_at = min(oldest or now, now) + retention.keep  # a row from the year 9999 would overflow
        PURGE_OVERDUE_SECONDS.labels(self._service, retention.table).set(max(0.0, (now - due_at).total_seconds()))
        return due_at
