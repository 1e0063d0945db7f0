"""What a service reads: the records of its consumer group, and a handler for each type of event in them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from structlog.contextvars import bound_contextvars

from muster_contracts import Envelope, Event
from muster_runtime.clock import Clock, is_ahead
from muster_runtime.context import Context
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging import positions
from muster_runtime.messaging.events import EventHandler
from muster_runtime.messaging.plan import Plan, runs
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item, Record, RecordReader
from muster_runtime.observability.telemetry import APPLIED, GAPS, HANDLER_SECONDS, NEW_EPOCHS, UNKNOWN_TYPES
from muster_runtime.pacing import Pace

# How many records to read before yielding to the event loop: about half a millisecond's work.
READ_AT_ONCE = 50


class AgencyAhead(Exception):
    """A batch of several agencies contains an event whose time is ahead of the clock, and that time would apply to all.

    Apply each agency separately, so that a producer with a wrong clock affects the times of its own agency only.
    """


class Subscriptions:
    """A service's event handlers, by event type, and the consumer group under which their positions are stored.

    `handled` counts the runs that a handler has returned from, also those that are rolled back later.
    """

    def __init__(self, handlers: Mapping[type[Event], EventHandler], *, service: str, group: str, clock: Clock) -> None:
        self._handlers = {cls.event_type: handler for cls, handler in handlers.items()}
        self._reader = RecordReader(handlers, service, clock)
        self._clock = clock
        self.service = service
        self.group = group
        self.handled = 0
        self.context = Context(actor=service, correlation_id="")
        for topic in {cls.topic for cls in handlers}:
            for counter in (GAPS, NEW_EPOCHS, UNKNOWN_TYPES):
                counter.labels(service, topic)  # starts at zero, so that the alert sees the first one

    async def read(self, records: Sequence[Record]) -> list[Item]:
        """The event in each record, or the defect that prevents applying it."""
        items: list[Item] = []
        pace = Pace()
        latest = self._reader.latest()
        for start in range(0, len(records), READ_AT_ONCE):
            await pace.keep()
            items += [self._reader.read(record, latest) for record in records[start : start + READ_AT_ONCE]]
        return items

    async def carry_out(self, uow: UnitOfWork, plans: Mapping[StreamKey, Plan]) -> None:
        """Call the handlers with each stream's fresh events, and store the streams' new positions.

        Raises AgencyAhead, and whatever a handler raises.
        """
        fresh = (item.envelope for plan in plans.values() for item in plan.fresh)
        await uow.take_in({envelope.id: envelope for envelope in fresh if envelope})
        if len(uow.agencies) > 1 and is_ahead(uow.now, self._clock):
            raise AgencyAhead
        for run in runs([plan.fresh for plan in plans.values()]):
            event_type = run[0].envelope.type
            with HANDLER_SECONDS.labels(self.service, event_type).time(), _logged_as(run[0].envelope):
                await self._handlers[event_type](uow, run)
            self.handled += 1
        positions.store(uow, self.group, {stream: plan.position for stream, plan in plans.items() if plan.fresh})
        for (topic, _), plan in plans.items():
            APPLIED.labels(self.service, topic).inc(len(plan.fresh))


def _logged_as(first: Envelope) -> AbstractContextManager[object]:
    """Bind a run's origin to its log lines: the origin of its first event, since most runs share one."""
    return bound_contextvars(correlation_id=first.correlation_id, causation_id=first.id)
