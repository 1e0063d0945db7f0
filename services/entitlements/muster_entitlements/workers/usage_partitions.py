"""Maintains the partitions of counted use: creates them ahead of their days, and drops them when they are over."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta

import structlog

from muster_entitlements.repository import usage
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.errors import describe
from muster_runtime.service import Runtime

# Days between two runs: fewer than the number of days for which partitions are created ahead.
DAYS = 2

# While a long read blocks the way, each attempt delays all use for seconds. Nothing is urgent.
RETRY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


async def run(runtime: Runtime) -> None:
    """Keep the partitions until canceled. Several processes may run at once."""
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
