"""Records that the client cannot decode, and past which an operator lets a consumer group go.

Nothing is known of such a record, not even its agency. What is missing after it is a gap in that agency's stream,
which parks and is accepted, or not, by itself.
"""

from typing import NamedTuple

from muster_runtime import audit
from muster_runtime.db import EVERY_AGENCY, Connection, UnitOfWork


class Unreadable(NamedTuple):
    """Records of one partition, from the first to the last offset."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int


async def let_pass(uow: UnitOfWork, group: str, records: Unreadable, reason: str) -> None:
    """Let the group go on behind these records, where it finds that it cannot read the first; harmless to repeat."""
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
        await audit.record(
            uow,
            command="PassUnreadableRecord",
            agency_id=EVERY_AGENCY,
            subject=f"{records.topic}[{records.partition}]@{records.first_offset}",
            after={"last_offset": records.last_offset},
            reason=reason,
        )


async def onward(connection: Connection, group: str, topic: str, partition: int, offset: int) -> int | None:
    """The offset to go on from, where an operator has let the group past the record at this one."""
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
