"""Replay: applies the records that wait in a parked stream, in order, until none waits or one is refused."""

import structlog

from muster_runtime.context import Context
from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.errors import describe
from muster_runtime.messaging import parked, parking, positions
from muster_runtime.messaging.events import Unreadable
from muster_runtime.messaging.plan import Plan, make_plan
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability import audit

# How many parked records a replay applies in one transaction.
REPLAY_RECORDS = 500

_log = structlog.get_logger(__name__)


class Replayer:
    """Replays a service's parked streams: for an operator, and when the events that one parked for have come."""

    def __init__(self, database: Database, subscriptions: Subscriptions) -> None:
        self._database = database
        self._subscriptions = subscriptions

    async def replay(self, topic: str, agency_id: str, context: Context) -> str | None:
        """Apply a parked stream's records in order; the last one unparks it.

        Returns the reason why the stream is still parked, or None. Each step is a transaction of its own, so a replay
        that was interrupted can simply be repeated.
        """
        at_once = REPLAY_RECORDS
        while True:
            try:
                async with self._database.blaming_schema(but=(Unreadable,)):
                    plan = await self._replay_next(topic, agency_id, context, at_once)
                if plan is None:
                    _log.info("stream_unparked", topic=topic, agency_id=agency_id)
                    return None
                if plan.held:
                    return plan.reason
            except RETRYABLE:
                raise
            except Exception as error:
                if at_once > 1:
                    at_once = 1  # so that everything before the culprit is applied
                    continue
                _log.warning("replay_refused", topic=topic, agency_id=agency_id, exc_info=error)
                reason = describe(error)
                async with self._database.write(agency_id, context=context) as uow:
                    await parking.note_reason(uow, self._subscriptions.group, topic, agency_id, reason, gap=False)
                return reason

    async def _replay_next(self, topic: str, agency_id: str, context: Context, at_once: int) -> Plan | None:
        """Apply the first records of a parked stream, up to one that is held; None when none waits."""
        subscriptions, group = self._subscriptions, self._subscriptions.group
        async with self._database.write(agency_id, context=context) as uow:
            records = await parked.first_records(uow.connection, group, topic, agency_id, at_once)
            if not records:
                return None
            last = await positions.of_stream(uow.connection, group, (topic, agency_id))
            plan = make_plan(subscriptions.service, topic, await subscriptions.read(records), last)
            if done := records[: len(records) - len(plan.held)]:
                await subscriptions.carry_out(uow, {(topic, agency_id): plan})
                await parking.remove(uow, group, done)
                audit.record(
                    uow,
                    command="ReplayParkedStream",
                    agency_id=agency_id,
                    subject=topic,
                    after={"records": len(done), "position": plan.position},
                )
            if plan.held:  # here, so that the next record that fills the gap finds it noted
                await parking.note_reason(uow, group, topic, agency_id, plan.reason, gap=plan.gap)
            return plan
