"""Records that an operator lets a service pass.

On a topic that the service reads: a record that the client cannot decode. Nothing is known of it, not even its agency.
If events are missing after it, that is a gap in the agency's stream, which is parked and resolved separately.

On a topic that the service writes: a record that another program wrote, at a position that the service has not
assigned. Once passed, it is no longer taken for a sign of a restored database.
"""

from collections.abc import Sequence
from typing import NamedTuple

from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.observability import audit


class OffsetRange(NamedTuple):
    """A range of records of one partition, including the last offset."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int

    def covers(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the range contains a record."""
        return (topic, partition) == self[:2] and self.first_offset <= offset <= self.last_offset

    def __str__(self) -> str:
        """Such as `muster.entitlements.seat[3]@17`, or `…@17 to 20`."""
        through = f" to {self.last_offset}" if self.last_offset > self.first_offset else ""
        return f"{self.topic}[{self.partition}]@{self.first_offset}{through}"


async def let_pass(uow: UnitOfWork, group: str, records: OffsetRange, reason: str) -> None:
    """Let a service, named by its group, pass these records. Repeating it is harmless."""
    added = await uow.connection.fetchval(
        """
        insert into passed_record (consumer_group, topic, kafka_partition, first_offset, last_offset)
        values ($1, $2, $3, $4, $5)
        on conflict (consumer_group, topic, kafka_partition, first_offset) do update
        set last_offset = excluded.last_offset
        where passed_record.last_offset < excluded.last_offset
        returning true
        """,
        group,
        *records,
    )
    if added:
        audit.record(
            uow,
            command="PassRecord",
            agency_id=EVERY_AGENCY,
            subject=f"{records.topic}[{records.partition}]@{records.first_offset}",
            after={"last_offset": records.last_offset},
            reason=reason,
        )


async def onward(connection: Connection, group: str, topic: str, partition: int, offset: int) -> int | None:
    """The offset to continue from if an operator let the group past the record at `offset`; otherwise None."""
    last: int | None = await connection.fetchval(
        """
        select max(last_offset)
        from passed_record
        where
            consumer_group = $1 and topic = $2 and kafka_partition = $3
            and first_offset <= $4 and last_offset >= $4
        """,
        group,
        topic,
        partition,
        offset,
    )
    return None if last is None else last + 1


async def forget(connection: Connection, group: str, topic: str, partition: int) -> None:
    """Forget which records of a partition the group may pass, because the topic was recreated."""
    await connection.execute(
        "delete from passed_record where consumer_group = $1 and topic = $2 and kafka_partition = $3",
        group,
        topic,
        partition,
    )


async def passed(connection: Connection, topics: Sequence[str]) -> list[OffsetRange]:
    """The records on these topics that an operator let the service pass."""
    rows = await connection.fetch(
        """
        select topic, kafka_partition, first_offset, last_offset
        from passed_record
        where topic = any($1::text[])
        """,
        topics,
    )
    return [OffsetRange(*row) for row in rows]
