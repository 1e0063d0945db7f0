"""Parking: a stream with an event that cannot be applied waits, in order, until an operator acts.

Only that agency's stream of that topic is parked. All others continue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from muster_contracts import Position
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.errors import RetryableError
from muster_runtime.messaging import breaker, parked
from muster_runtime.messaging.record_reader import Record

MAX_REASON = 2_000


class Waiting(NamedTuple):
    """A record to park, and its position; None if the record cannot be read."""

    record: Record
    position: Position | None


@dataclass(frozen=True, slots=True)
class ParkingLimits:
    """How many records may be parked of one stream, and how many streams handlers may refuse within breaker.WINDOW."""

    records: int
    streams: int


class StreamBlocked(RetryableError):
    """Nothing of one stream can be applied for now. Its partition must wait; others need not."""

    def __init__(self, topic: str, agency_id: str, why: str) -> None:
        super().__init__(why)
        self.topic = topic
        self.agency_id = agency_id


class StreamFull(StreamBlocked):
    """A parked stream is full: its partition waits until an operator acts."""


class PlaceTaken(StreamBlocked):
    """A different record is parked at the same offset: it is from an earlier topic of that name.

    An operator must resolve it.
    """


class AgencyBlocked(StreamBlocked):
    """Another transaction holds the agency's lock longer than a consumer waits, or the agency's rows cannot be read."""


async def park(
    uow: UnitOfWork,
    group: str,
    records: Sequence[Waiting],
    reason: str,
    limits: ParkingLimits,
    *,
    refused: bool = False,
    gap: bool = False,
) -> None:
    """Park records of one stream; the first of them could not be applied.

    `refused` says that a handler refused it, which counts for the breaker. A defect of the record itself does not
    count: otherwise, anyone who writes invalid records could stop every agency. `gap` says that events are missing
    before it. If the stream is already parked for a gap, this becomes its reason. Raises BreakerOpen and StreamFull.
    """
    first = records[0].record
    if refused:
        await breaker.check(uow, group, limits.streams)
    await uow.connection.execute(
        """
        insert into parked_stream (consumer_group, topic, agency_id, parked_at, reason, refused, gap)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (consumer_group, topic, agency_id) do update
        set reason = excluded.reason, refused = excluded.refused, gap = excluded.gap
        where parked_stream.gap
        """,
        group,
        first.topic,
        first.agency_id,
        uow.now,
        printable(reason),
        refused,
        gap,
    )
    await append(uow, group, records, limits)


async def note_reason(uow: UnitOfWork, group: str, topic: str, agency_id: str, reason: str, *, gap: bool) -> None:
    """Store why a stream is still parked after a replay, and whether events are missing."""
    await uow.connection.execute(
        "update parked_stream set reason = $4, gap = $5 where consumer_group = $1 and topic = $2 and agency_id = $3",
        group,
        topic,
        agency_id,
        printable(reason),
        gap,
    )


def printable(reason: str) -> str:
    """Escape and shorten a reason: it may quote a record, which can contain characters that text in Postgres cannot."""
    cut = reason[:MAX_REASON]
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()[:MAX_REASON]


async def append(uow: UnitOfWork, group: str, records: Sequence[Waiting], limits: ParkingLimits) -> None:
    """Append records to a parked stream. A record that is read twice is stored once.

    Raises StreamFull if too many records would wait, and PlaceTaken.
    """
    if not records:
        return
    topic, agency_id = records[0].record.topic, records[0].record.agency_id
    positions = await _positions(uow.connection, group, records)
    await _require_free(uow.connection, group, records)
    await uow.connection.executemany(
        """
        with added as (
            insert into parked_event (
                consumer_group, topic, agency_id, kafka_partition, kafka_offset, key,
                header_names, header_values, value, parked_at, epoch, sequence
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            on conflict do nothing
            returning 1
        )
        update parked_stream
        set records = records + (select count(*) from added)
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        [
            (
                group,
                record.topic,
                record.agency_id,
                record.partition,
                record.offset,
                record.key,
                [name.replace("\0", "\\0") for name, _ in record.headers],  # text in Postgres cannot contain NUL
                [value for _, value in record.headers],
                record.value,
                uow.now,
                *position,
            )
            for (record, _), position in zip(records, positions, strict=True)
        ],
    )
    if await parked.count(uow.connection, group, topic, agency_id) > limits.records:
        full = f"the parked stream of {agency_id} on {topic} is full: {limits.records} records wait"
        raise StreamFull(topic, agency_id, full)


async def _require_free(connection: Connection, group: str, records: Sequence[Waiting]) -> None:
    """Raise PlaceTaken if a different record is parked at the offset of one of these."""
    taken = await connection.fetchrow(
        """
        select parked.kafka_partition, parked.kafka_offset, parked.agency_id
        from unnest($3::integer[], $4::bigint[], $5::bytea[], $6::text[]) as found (number, place, content, agency)
        inner join parked_event as parked
            on
                parked.consumer_group = $1
                and parked.topic = $2
                and parked.kafka_partition = found.number
                and parked.kafka_offset = found.place
        where parked.value is distinct from found.content or parked.agency_id <> found.agency
        limit 1
        """,
        group,
        records[0].record.topic,
        [record.partition for record, _ in records],
        [record.offset for record, _ in records],
        [record.value for record, _ in records],
        [record.agency_id for record, _ in records],
    )
    if taken is not None:
        first = records[0].record
        place = f"{first.topic}[{taken['kafka_partition']}]@{taken['kafka_offset']}"
        found = f"the parked stream of {taken['agency_id']} has another record at {place}, of an earlier topic"
        raise PlaceTaken(first.topic, first.agency_id, found)


async def _positions(connection: Connection, group: str, records: Sequence[Waiting]) -> list[Position]:
    """Each record's position. An unreadable record gets the position of the record before it in its partition."""
    first = records[0].record
    latest: dict[int, Position] = {}
    if any(position is None for _, position in records):
        rows = await connection.fetch(
            """
            select distinct on (kafka_partition) kafka_partition, epoch, sequence
            from parked_event
            where consumer_group = $1 and topic = $2 and agency_id = $3
            order by kafka_partition, kafka_offset desc
            """,
            group,
            first.topic,
            first.agency_id,
        )
        latest = {row["kafka_partition"]: Position(row["epoch"], row["sequence"]) for row in rows}
    positions = []
    for record, own in records:
        position = own or latest.get(record.partition, Position(0, 0))
        latest[record.partition] = position
        positions.append(position)
    return positions


async def remove(uow: UnitOfWork, group: str, records: Sequence[Record]) -> None:
    """Remove records that were applied or discarded; the stream is unparked when its last record is removed."""
    first = records[0]
    await uow.connection.execute(
        """
        with gone as (
            delete from parked_event
            where
                consumer_group = $1 and topic = $2 and agency_id = $3
                and (kafka_partition, kafka_offset) in (select * from unnest($4::integer[], $5::bigint[]))
            returning 1
        )
        update parked_stream
        set records = records - (select count(*) from gone)
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        group,
        first.topic,
        first.agency_id,
        [record.partition for record in records],
        [record.offset for record in records],
    )
    await uow.connection.execute(
        """
        delete from parked_stream as s
        where
            consumer_group = $1 and topic = $2 and agency_id = $3
            and not exists (
                select
                from parked_event as e
                where
                    e.consumer_group = s.consumer_group and e.topic = s.topic
                    and e.agency_id = s.agency_id
            )
        """,
        group,
        first.topic,
        first.agency_id,
    )
