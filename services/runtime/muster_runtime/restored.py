"""A database that is older than what its service has published: restored from a backup, with its epoch not raised.

It would give positions out a second time, and the readers would take what it says for known.
"""

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from muster_contracts import MalformedRecord, read_headers
from muster_runtime.db import Database
from muster_runtime.errors import RetryableError
from muster_runtime.positions import Position, StreamKey

# How long the topics' last records may take to arrive; one that compaction has removed never does.
PATIENCE_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class DatabaseRestored(RetryableError):
    """Nothing may be published until an operator has raised the epoch."""


async def refuse_restored(database: Database, bootstrap: str, topic_prefix: str, topics: Sequence[str]) -> None:
    """Compare the last record of each partition with what the database has given out.

    Whoever loses its last commits loses the last record of a partition with them, so one record tells.
    Raises DatabaseRestored, and KafkaError.
    """
    published = await _last_positions(bootstrap, topic_prefix, topics)
    # Only now: whatever is on a topic was given out by a commit before it. A stream that is not known, because its
    # beginning is lost too, begins in the service's epoch.
    rows = await database.pool.fetch(
        """
        select topic, agency_id, coalesce(s.epoch, e.number) as epoch, coalesce(s.last_sequence, 0) as last_sequence
        from unnest($1::text[], $2::text[]) as published (topic, agency_id)
        cross join epoch as e
        left join stream as s using (topic, agency_id)
        """,
        [topic for topic, _ in published],
        [agency_id for _, agency_id in published],
    )
    given_out = {(row["topic"], row["agency_id"]): (row["epoch"], row["last_sequence"]) for row in rows}
    for stream, position in published.items():
        if position > given_out[stream]:
            topic, agency_id = stream
            raise DatabaseRestored(
                f"{topic} of {agency_id} goes up to epoch {position[0]}, sequence {position[1]}, which this database "
                "has not given out: it was restored; raise its epoch (muster streams epoch raise) before it publishes"
            )


async def _last_positions(bootstrap: str, topic_prefix: str, topics: Sequence[str]) -> dict[StreamKey, Position]:
    """The position of the last event of each partition."""
    names = [topic_prefix + topic for topic in topics]
    consumer = AIOKafkaConsumer(*names, bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        waiting = {partition for partition, end in ends.items() if end}
        for partition in waiting:
            consumer.seek(partition, ends[partition] - 1)
        positions: dict[StreamKey, Position] = {}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while waiting:
                    for partition, records in (await consumer.getmany(*waiting, timeout_ms=1000)).items():
                        waiting.discard(partition)
                        positions |= _position(records[-1], topic_prefix)
        except TimeoutError:
            _log.warning("topic_ends_unread", partitions=[f"{p.topic}[{p.partition}]" for p in sorted(waiting)])
        return positions
    finally:
        await consumer.stop()


def _position(record: "ConsumerRecord[bytes, bytes]", topic_prefix: str) -> dict[StreamKey, Position]:
    try:
        envelope = read_headers(record.headers)
    except MalformedRecord:
        return {}  # no event of ours
    stream = (record.topic.removeprefix(topic_prefix), envelope.agency_id)
    return {stream: (envelope.epoch, envelope.sequence)}
