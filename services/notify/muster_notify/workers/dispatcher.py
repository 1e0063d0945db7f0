"""Attempts the deliveries that are due, outside any transaction, and records each result in its own.

If the process dies between an attempt and its result, the attempt is repeated with the same webhook-id or
Message-ID: at-least-once delivery, and never out of order in a lane.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from weakref import WeakValueDictionary

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from muster_notify.adapters.sender import Sender
from muster_notify.domain.deliveries import Channel, Delivery, DeliveryState, Lane, Outcome, Progress, Verdict, progress
from muster_notify.handlers.disabling import disable_endpoint
from muster_notify.repository import deliveries
from muster_notify.workers.clearance import Clearance
from muster_notify.workers.trusted_clock import TrustedClock
from muster_runtime import spans
from muster_runtime.canceling import is_canceled, run_together
from muster_runtime.context import Context
from muster_runtime.database.transactions import EVERY_AGENCY, ONE_AGENCYS, RETRYABLE
from muster_runtime.errors import ClockSkewed, RetryableError
from muster_runtime.messaging.lease import RENEW_SECONDS, WORK_SECONDS, Lease
from muster_runtime.service import Runtime
from muster_runtime.slots import Slots

# Lanes of a channel that are dispatched at once: shared by audiences, so that a single one has about half of them. The
# channels do not wait for each other.
SLOTS = {Channel.EMAIL: 8, Channel.WEBHOOK: 32}

# How long a lane may continue to its next delivery before others get its slot.
TURN_SECONDS = 1

# How long a result that cannot be recorded for one agency alone keeps a slot from the others. Then it is given up, and
# the attempt is repeated.
RECORD_SECONDS = 60

# How long a lane that has failed keeps its slot: otherwise, it would start again without a pause.
PAUSE_SECONDS = 0.5

# How long running attempts may take when the process stops: until a duty is canceled again, less what the rest takes.
DRAIN_SECONDS = 4.0

_log = structlog.get_logger(__name__)


class LeaseOver(RetryableError):
    """Another process may lead by now: an attempt was canceled, or must not begin here."""

    def __init__(self) -> None:
        super().__init__("the lease is over")


class Dispatcher:
    """Dispatches the lanes, in one process at a time."""

    def __init__(self, senders: Mapping[Channel, Sender]) -> None:
        self._senders = senders
        self._lanes: dict[Channel, dict[Lane, asyncio.Task[None]]] = {channel: {} for channel in senders}
        self._slots = {channel: Slots(SLOTS[channel], f"{channel} slots") for channel in senders}
        # Audiences in the order of their last turn.
        self._served: dict[Channel, dict[str, None]] = {channel: {} for channel in senders}
        self._attempts: set[asyncio.Task[Outcome]] = set()
        # Only one lane of an agency waits for its lock: the others would take the connections that the lease needs.
        self._recording: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stopping = False
        self._clock = TrustedClock()
        self._clearance: Clearance | None = None  # until it runs

    @property
    def warnings(self) -> Sequence[str]:
        """Human-readable reasons why this process sends nothing, or no e-mail."""
        return [*self._clock.warnings, *(self._clearance.warnings if self._clearance else ())]

    async def run(self, runtime: Runtime) -> None:
        """Dispatch until canceled; then let running attempts finish."""
        self._clearance = Clearance(runtime)
        await run_together(self._dispatch(runtime, self._clearance), self._clearance.run())

    async def _dispatch(self, runtime: Runtime, clearance: Clearance) -> None:
        lease = Lease(runtime.database, "dispatch", runtime.settings.instance)
        watching = asyncio.create_task(_cancel_without(lease, self._attempts))
        try:
            while not is_canceled():
                self._forget_finished_lanes()
                try:
                    async with asyncio.timeout(WORK_SECONDS):
                        due_at = await self._start_lanes(runtime, lease, clearance)
                    await self._rest(runtime, due_at)
                except RETRYABLE as error:
                    _log.warning("dispatch_failed", error=repr(error))
                    if not is_canceled():
                        await asyncio.sleep(0.5)
        finally:
            try:
                await self._stop(lease)
            finally:
                watching.cancel()

    async def _start_lanes(self, runtime: Runtime, lease: Lease, clearance: Clearance) -> datetime | None:
        """Start the lanes that are due, if this process leads; returns when the next ones are due."""
        if not lease.is_held:
            clearance.end()
        # A process whose clock is wrong, or whose schema does not fit its code, may be unable to record what it sends.
        leads = await self._clock.is_trusted(runtime) and await runtime.database.fits() and await lease.take()
        now = runtime.clock.now()
        async with lease.renewed() if leads else nullcontext(), runtime.database.connection() as connection:
            cleared = await clearance.channels(connection) if leads else {}
            for channel, lanes in self._lanes.items():
                slots, served = self._slots[channel], self._served[channel]
                if not lanes:
                    served.clear()
                if channel not in cleared or slots.used == slots.total:
                    continue
                # As many as there are slots: audiences that hold one cannot hide those that wait for their first.
                due = await deliveries.list_due(
                    connection, channel, now, busy=lanes, served=served, withheld=cleared[channel], limit=slots.total
                )
                for delivery in due:
                    operator = delivery.audience == EVERY_AGENCY
                    if delivery.lane not in lanes and slots.fits(delivery.audience, operator=operator):
                        slots.take(delivery.audience, operator=operator)
                        served.pop(delivery.audience, None)
                        served[delivery.audience] = None
                        lane = lanes[delivery.lane] = asyncio.create_task(self._work(runtime, lease, delivery))
                        lane.add_done_callback(partial(_give_back, slots, delivery.audience))
            return await deliveries.find_next_due(connection, after=now)

    def _forget_finished_lanes(self) -> None:
        """Raise the error of a lane that crashed, which stops the process: its attempt is not recorded."""
        for lanes in self._lanes.values():
            for lane, task in list(lanes.items()):
                if task.done():
                    del lanes[lane]
                    task.result()

    async def _rest(self, runtime: Runtime, until: datetime | None) -> None:
        """Wait for a wakeup, the end of a lane, or the time to renew the lease."""
        wakeup = asyncio.create_task(runtime.wakeup.wait(until))
        lanes = [task for tasks in self._lanes.values() for task in tasks.values()]
        try:
            await asyncio.wait([wakeup, *lanes], timeout=RENEW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wakeup.cancel()

    async def _work(self, runtime: Runtime, lease: Lease, delivery: Delivery) -> None:
        """Attempt a lane's deliveries in order until one must wait, or until it is the turn of others."""
        ends_at = time.monotonic() + TURN_SECONDS
        try:
            while following := await self._deliver(runtime, lease, delivery):
                if self._stopping or not lease.is_held or time.monotonic() >= ends_at:
                    break
                delivery = following
        except RETRYABLE as error:
            _log.warning("delivery_not_recorded", delivery_id=delivery.id, error=repr(error))
            await asyncio.sleep(PAUSE_SECONDS)
        await self._senders[delivery.channel].settle(delivery.lane)

    async def _deliver(self, runtime: Runtime, lease: Lease, delivery: Delivery) -> Delivery | None:
        """Attempt a delivery and record the result; returns the next one of the lane if that is due now."""
        started = time.monotonic()
        with _span(delivery) as span:
            outcome = await self._attempt_while_leading(runtime, lease, delivery)
            span.set_attribute("muster.delivery.verdict", outcome.verdict)
            if outcome.verdict is not Verdict.DELIVERED:
                spans.fail(span, outcome.verdict)
        milliseconds = int((time.monotonic() - started) * 1000)
        step = progress(delivery, outcome, runtime.clock.now())
        if outcome.verdict is not Verdict.DELIVERED:
            _note_failure(delivery, outcome)
        recording = AsyncRetrying(
            retry=retry_if_exception_type(RETRYABLE),
            wait=wait_exponential_jitter(multiplier=0.1, max=5),
            stop=partial(self._gives_up, lease),
            before_sleep=partial(_note_retry, delivery),
            reraise=True,
        )
        return await recording(self._record, runtime, delivery, outcome, step, milliseconds)

    def _gives_up(self, lease: Lease, state: RetryCallState) -> bool:
        """Whether to stop trying to record a result: the attempt is then repeated."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ClockSkewed):
            self._clock.refuse(str(error))  # so the lease ends
        is_overdue = isinstance(error, ONE_AGENCYS) and (state.seconds_since_start or 0) > RECORD_SECONDS
        return is_overdue or self._stopping or not lease.is_held

    async def _record(
        self, runtime: Runtime, delivery: Delivery, outcome: Outcome, step: Progress, milliseconds: int
    ) -> Delivery | None:
        """Record the result of an attempt; returns the next delivery of the lane if that is due now."""
        owner = {delivery.audience} if step.disable_endpoint else set()
        context = Context(actor=runtime.service.name, correlation_id=delivery.correlation_id)
        async with (
            self._recording.setdefault(delivery.agency_id, asyncio.Lock()),
            runtime.database.blaming_schema(),
            runtime.database.write(delivery.agency_id, *owner, context=context) as uow,
        ):
            recorded = await deliveries.add_attempt(
                uow.connection, delivery, outcome, step, attempted_at=uow.now, milliseconds=milliseconds
            )
            if not recorded or step.state is DeliveryState.PENDING:
                return None
            if step.disable_endpoint:
                await disable_endpoint(uow, delivery, outcome.detail)
            promoted = await deliveries.save_heads_as_due(uow.connection, [delivery.lane], uow.now)
        return promoted[0] if promoted else None

    async def _attempt_while_leading(self, runtime: Runtime, lease: Lease, delivery: Delivery) -> Outcome:
        """Attempt a delivery. Raises LeaseOver if another process may attempt it by now."""
        if not lease.is_held:
            raise LeaseOver
        attempt = asyncio.create_task(self._attempt(runtime, delivery))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        try:
            return await attempt
        except asyncio.CancelledError:
            if is_canceled():
                raise
            raise LeaseOver from None

    async def _attempt(self, runtime: Runtime, delivery: Delivery) -> Outcome:
        try:
            return await self._senders[delivery.channel].send(runtime.database, delivery, runtime.clock.now())
        except RETRYABLE:
            raise
        except Exception as error:
            # A defect in one message must not stop the others: log it, and retry until it is fixed.
            _log.error("delivery_defect", delivery_id=delivery.id, exc_info=error)
            return Outcome(Verdict.RETRY, f"internal error: {type(error).__name__}")

    async def _stop(self, lease: Lease) -> None:
        self._stopping = True
        lanes = [task for tasks in self._lanes.values() for task in tasks.values()]
        try:
            if lanes:
                async with lease.renewed():  # otherwise, the next process attempts the same deliveries
                    await asyncio.wait(lanes, timeout=DRAIN_SECONDS)
                    for lane in lanes:
                        lane.cancel()
        finally:
            for lane in lanes:
                lane.cancel()
            try:
                await asyncio.gather(*lanes, return_exceptions=True)
                for sender in self._senders.values():
                    await sender.close()
            finally:
                await lease.release()


async def _cancel_without(lease: Lease, attempts: Collection[asyncio.Task[Outcome]]) -> None:
    """Cancel attempts when the lease is over: another process repeats them, and a late one would overtake it.

    It does not ask the database, which may be unreachable.
    """
    while True:
        await asyncio.sleep(min(lease.seconds_left or RENEW_SECONDS, RENEW_SECONDS))
        if not lease.is_held:
            for attempt in attempts:
                attempt.cancel()


def _give_back(slots: Slots, audience: str, _: asyncio.Task[None]) -> None:
    slots.give_back(audience)


def _note_failure(delivery: Delivery, outcome: Outcome) -> None:
    _log.warning(
        "delivery_attempt_failed",
        delivery_id=delivery.id,
        agency_id=delivery.agency_id,
        correlation_id=delivery.correlation_id,
        verdict=outcome.verdict,
        detail=outcome.detail,
    )


def _note_retry(delivery: Delivery, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("recording_retried", delivery_id=delivery.id, attempt=state.attempt_number, error=repr(error))


def _span(delivery: Delivery) -> AbstractContextManager[spans.Span]:
    """The span of an attempt; the recipient's address is left out."""
    attributes: spans.Attributes = {
        "muster.agency_id": delivery.agency_id,
        "muster.delivery_id": delivery.id,
        "muster.delivery.attempt": delivery.attempts + 1,
    }
    return spans.follow(f"deliver {delivery.channel}", spans.SpanKind.CLIENT, [delivery.traceparent], attributes)
