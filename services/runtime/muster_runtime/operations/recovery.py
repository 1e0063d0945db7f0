"""What an operator can do if a replay cannot unpark a stream: accept its gap, or discard invalid records."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from muster_contracts import MAX_EPOCH, MAX_SEQUENCE, Position
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict, NotFound
from muster_runtime.messaging import parked, parking, positions
from muster_runtime.messaging.plan import leaves_gap
from muster_runtime.messaging.record_reader import Item
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability import audit


class RecordName(BaseModel):
    """A record's partition and offset in Kafka, which identify it within its topic."""

    partition: int = Field(strict=True, ge=0, le=MAX_EPOCH)
    offset: int = Field(strict=True, ge=0, le=MAX_SEQUENCE)

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


async def accept_gap(
    uow: UnitOfWork, subscriptions: Subscriptions, topic: str, agency_id: str, waiting: int, reason: str
) -> None:
    """Accept that a parked stream lacks sequences: move its position to just before its first record.

    Replay the stream afterward. Raises NotFound if nothing is parked, and Conflict if the stream is parked for
    another reason or if `waiting` is not the first waiting sequence, so a repeated command accepts no later gap.
    """
    group = subscriptions.group
    records = await parked.first_records(uow.connection, group, topic, agency_id, 1)
    if not records:
        raise not_parked(topic, agency_id)
    (item,) = await subscriptions.read(records)
    last = await positions.of_stream(uow.connection, group, (topic, agency_id))
    if item.defect is not None or item.position is None:
        raise Conflict(f"the stream is not parked because of a gap, but because of this: {item.defect}")
    found = item.position.sequence
    if found != waiting:
        raise Conflict(f"the first waiting sequence is {found}, not {waiting}: show the stream again")
    if not leaves_gap(item.position, last, topic):
        raise Conflict("there is no gap: the first waiting record is the next one; replay the stream")
    # Stay in the old epoch, so that the first event of a new one still raises an alert.
    accepted = Position(last.epoch, found - 1)
    positions.store(uow, group, {(topic, agency_id): accepted})
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
    uow: UnitOfWork,
    subscriptions: Subscriptions,
    topic: str,
    agency_id: str,
    named: Sequence[RecordName],
    reason: str,
) -> int:
    """Discard the first records of a parked stream, with an audit row for each. Returns how many still wait.

    Raises NotFound if nothing is parked, and Conflict if the named records are not the first ones, so a repeated
    command discards nothing else.
    """
    group = subscriptions.group
    records = await parked.first_records(uow.connection, group, topic, agency_id, len(named))
    if not records:
        raise not_parked(topic, agency_id)
    first = [RecordName(partition=record.partition, offset=record.offset) for record in records]
    if first != list(named):
        raise Conflict(
            f"records: {', '.join(map(str, named[:5]))} are not the first waiting records, which are "
            f"{', '.join(map(str, first[:5]))}: show the stream again and name those"
        )
    position = await positions.of_stream(uow.connection, group, (topic, agency_id))
    for item in await subscriptions.read(records):
        position = _give_up(uow, group, item, position, reason)
    await parking.remove(uow, group, records)
    return await parked.count(uow.connection, group, topic, agency_id)


def not_parked(topic: str, agency_id: str) -> NotFound:
    """The error for a stream that is not parked."""
    return NotFound(f"no stream of {agency_id[:40]!r} on topic {topic[:80]!r} is parked")


def _give_up(uow: UnitOfWork, group: str, item: Item, last: Position, reason: str) -> Position:
    """Move the position past a record if it is the next one. A gap before it remains a gap.

    The audit trail names the event. Its data stays in Kafka, because it may concern a person.
    """
    record, envelope = item.record, item.envelope
    moved = last
    if item.position is not None and not leaves_gap(item.position, last, record.topic):
        moved = max(item.position, last)
    positions.store(uow, group, {(record.topic, record.agency_id): moved})
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
