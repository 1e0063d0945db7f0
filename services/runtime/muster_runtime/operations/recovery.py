"""An operator's answers to a parked stream that no replay can free: accept its gap, or discard what is worthless."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from muster_contracts import MAX_EPOCH, MAX_SEQUENCE
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict, NotFound
from muster_runtime.messaging import parked, parking, positions
from muster_runtime.messaging.plan import leaves_gap
from muster_runtime.messaging.positions import Position
from muster_runtime.messaging.record_reader import Item
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability import audit


class RecordName(BaseModel):
    """Where a record lies in Kafka: no other is ever meant by it."""

    partition: int = Field(ge=0, le=MAX_EPOCH)
    offset: int = Field(ge=0, le=MAX_SEQUENCE)

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


class Recovery:
    """The parked streams of a consumer group, in an operator's hands. The records of one stream go by position."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self._group = subscriptions.group

    async def accept_gap(self, uow: UnitOfWork, topic: str, agency_id: str, waiting: int, reason: str) -> None:
        """Give up the sequences that a stream parked for: its position moves to just before its first record.

        Then replay. Raises NotFound where nothing is parked, and Conflict where it is parked for something else, or
        where another sequence than `waiting` waits first: so a command that is sent twice accepts no later gap.
        """
        records = await parked.first_records(uow.connection, self._group, topic, agency_id, 1)
        if not records:
            raise _not_parked(topic, agency_id)
        (item,) = await self._subscriptions.read(records)
        last = await positions.of_stream(uow.connection, self._group, (topic, agency_id))
        if item.defect is not None or item.position is None:
            raise Conflict(f"the stream is not parked for a gap, but for this: {item.defect}")
        if item.position[1] != waiting:
            raise Conflict(f"the first waiting sequence is {item.position[1]}, not {waiting}: show the stream again")
        if not leaves_gap(item.position, last, topic):
            raise Conflict("there is no gap: the first waiting record is the next one; replay the stream")
        # In the old epoch, so that the first event of a new one still raises its alarm.
        accepted = (last[0], item.position[1] - 1)
        positions.store(uow, self._group, {(topic, agency_id): accepted})
        audit.record(
            uow,
            command="AcceptGap",
            agency_id=agency_id,
            subject=topic,
            before={"position": last},
            after={"position": accepted},
            reason=reason,
        )

    async def discard(
        self, uow: UnitOfWork, topic: str, agency_id: str, named: Sequence[RecordName], reason: str
    ) -> int:
        """Give up the first records of a parked stream, with an audit row for each; returns how many still wait.

        Raises NotFound where nothing is parked, and Conflict where other records than those named wait first: so a
        command that is sent twice gives up nothing else.
        """
        records = await parked.first_records(uow.connection, self._group, topic, agency_id, len(named))
        if not records:
            raise _not_parked(topic, agency_id)
        first = [RecordName(partition=record.partition, offset=record.offset) for record in records]
        if first != list(named):
            raise Conflict(
                f"records: {', '.join(map(str, named[:5]))} are not the first waiting records, which are "
                f"{', '.join(map(str, first[:5]))}: show the stream again and name those"
            )
        position = await positions.of_stream(uow.connection, self._group, (topic, agency_id))
        for item in await self._subscriptions.read(records):
            position = self._give_up(uow, item, position, reason)
        await parking.remove(uow, self._group, records)
        return await parked.count(uow.connection, self._group, topic, agency_id)

    def _give_up(self, uow: UnitOfWork, item: Item, last: Position, reason: str) -> Position:
        """Move the position past a record where it is the next one; a gap before it stays one, to be accepted or not.

        The audit names the event; what it said stays in Kafka, since it may concern a person.
        """
        record, envelope = item.record, item.envelope
        moved = last
        if item.position is not None and not leaves_gap(item.position, last, record.topic):
            moved = max(item.position, last)
        positions.store(uow, self._group, {(record.topic, record.agency_id): moved})
        audit.record(
            uow,
            command="DiscardParkedRecord",
            agency_id=record.agency_id,
            subject=f"{record.topic}[{record.partition}]@{record.offset}",
            before={"position": last},
            after={
                "position": moved,
                "event_id": envelope.id if envelope else None,
                "event_type": envelope.type if envelope else None,
            },
            reason=reason,
        )
        return moved


def _not_parked(topic: str, agency_id: str) -> NotFound:
    return NotFound(f"no stream of {agency_id[:40]!r} on topic {topic[:80]!r} is parked")
