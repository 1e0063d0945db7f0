"""Maintains the partitions of counted use: creates them ahead of their days, and drops them when they are over."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta

import structlog

from muster_entitlements.repository import usage
from muster_runtime.database.transactions import RETRYABLE, Connection
from muster_runtime.errors import describe
from muster_runtime.service import Runtime, Worker

# Days between two runs: fewer than the number of days for which partitions are created ahead.
DAYS = 2

# While a long read blocks the way, each attempt delays all use for seconds. Nothing is urgent.
RETRY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


async def _nothing_due(_connection: Connection) -> datetime | None:
    """Nothing is ever overdue: until a partition exists, the default one takes its rows."""
    return None


def usage_partitions_worker() -> Worker:
    """The worker of a process. Several may run at once."""
    return Worker("usage-partitions", _keep, _nothing_due)


async def _keep(runtime: Runtime) -> None:
    kept = date.min
    while True:
        today = runtime.clock.now().date()
        if not kept <= today < kept + timedelta(days=DAYS):
            try:
                async with runtime.database.connection() as connection:
                    await usage.keep_partitions(connection, today)
            except RETRYABLE as error:
                _log.warning("usage_partitions_retried", error=describe(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            kept = today
        await runtime.wakeup.wait(datetime.combine(kept + timedelta(days=DAYS), time(), UTC))
