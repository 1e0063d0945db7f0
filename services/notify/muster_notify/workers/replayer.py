"""Runs replays: makes what an endpoint missed pending again, in order and in bounded steps.

Until a lane's last missed delivery is pending, later deliveries in that lane are not attempted (`deliveries.list_due`),
so that an agency's events arrive in order. Once a replay is over, however it ended, it holds nothing up.
"""

import asyncio

import structlog

from muster_notify.domain.endpoints import Replay, ReplayState, WebhookState
from muster_notify.repository import deliveries, endpoints, replays
from muster_runtime.context import Context
from muster_runtime.database.locks import UNDATED_LOCK
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.service import Runtime

# How many deliveries one transaction makes pending.
STEP = 500

_log = structlog.get_logger(__name__)


async def run(runtime: Runtime) -> None:
    """Replay until canceled. Several processes may run at once: a step that another has taken changes nothing."""
    while True:
        try:
            async with runtime.database.connection() as connection:
                running = await replays.list_running(connection)
            for replay in running:
                await _step(runtime, replay)
            if not running:
                await runtime.wakeup.wait()
        except RETRYABLE as error:
            _log.warning("replay_retried", error=repr(error))
            await asyncio.sleep(0.5)


async def _step(runtime: Runtime, replay: Replay) -> None:
    """Make the next deliveries of a replay pending, or stop it if its endpoint is no longer enabled."""
    async with runtime.database.connection() as connection:
        missed = await replays.list_missed(connection, replay, STEP)
    agencies = {row["agency_id"] for row in missed}
    context = Context(actor=runtime.service.name, correlation_id=replay.id)
    async with runtime.database.write(replay.agency_id, *agencies, context=context, lock=UNDATED_LOCK) as uow:
        endpoint = await endpoints.find_endpoint(uow.connection, replay.webhook_id)
        state = ReplayState.RUNNING if len(missed) == STEP else ReplayState.DONE
        if endpoint.state is not WebhookState.ENABLED:
            missed, state = [], ReplayState.STOPPED
        if await replays.save_progress(uow.connection, replay, missed, state, uow.now):
            await deliveries.save_as_pending(uow.connection, [row["id"] for row in missed])
            await deliveries.save_order(
                uow.connection, {(agency_id, replay.webhook_id) for agency_id in agencies}, uow.now
            )
            uow.wake()
    if state is not ReplayState.RUNNING:
        _log.info("replay_finished", replay_id=replay.id, webhook_id=replay.webhook_id, state=state)
