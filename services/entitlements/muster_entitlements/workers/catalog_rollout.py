"""The worker that rolls out published versions of the feature catalog to the agencies, one after the other."""

import asyncio

import structlog
from prometheus_client import Gauge

from muster_entitlements.handlers.rollouts import roll_out
from muster_entitlements.repository import catalogs
from muster_runtime.context import new_context
from muster_runtime.database.transactions import RETRYABLE, Connection
from muster_runtime.service import Runtime

# How long an agency waits after a failure, such as a held lock, or for its deadlines. The others continue.
RETRY_SECONDS = 2.0

WAITING_AGENCIES = Gauge(
    "muster_catalog_waiting_agencies",
    "Agencies waiting for a catalog version that applies to them; a few seconds after a publication, only those "
    "whose deadlines wait.",
    ["service"],
)

_log = structlog.get_logger(__name__)


async def count_waiting_agencies(connection: Connection) -> None:
    """Update the metric."""
    WAITING_AGENCIES.labels("entitlements").set(len(await catalogs.list_waiting(connection)))


async def run(runtime: Runtime) -> None:
    """Roll out versions until canceled.

    Several processes may run it at once: under the agency's lock, a step that is already done changes nothing.
    """
    while True:
        try:
            async with runtime.database.connection() as connection:
                agencies = await catalogs.list_waiting(connection)
            failed = [agency_id for agency_id in agencies if not await _roll_out(runtime, agency_id)]
        except RETRYABLE as error:
            _log.warning("catalog_rollout_retried", error=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if failed:
            await asyncio.sleep(RETRY_SECONDS)
        elif not agencies:
            await runtime.wakeup.wait()


async def _roll_out(runtime: Runtime, agency_id: str) -> bool:
    context = new_context(runtime.service.name, runtime.clock.now())
    try:
        async with runtime.database.write(agency_id, context=context) as uow:
            return await roll_out(uow, agency_id)
    except Exception as error:
        if isinstance(error, RETRYABLE):
            _log.warning("catalog_rollout_retried", agency_id=agency_id, error=repr(error))
        else:
            _log.exception("catalog_rollout_failed", agency_id=agency_id)
        return False
