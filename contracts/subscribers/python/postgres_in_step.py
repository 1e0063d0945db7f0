"""Keep a table of seats exactly in step with Muster: each fact has its effect once, whatever dies when.

The place in each stream is a row in the same database, changed by the same transaction as the effects. Postgres
commits first and Kafka after: a lost Kafka commit brings duplicates, and the row says so. Its lock keeps two
instances apart while Kafka hands partitions from one to the other.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from muster_contracts import Decoded, Duplicate, Gap, NewerMajor, Position, decode, judge
from muster_contracts.entitlements import SeatAssigned, SeatRevoked

BOOTSTRAP = os.environ.get("MUSTER_KAFKA_BOOTSTRAP", "localhost:9092")
PREFIX = os.environ.get("MUSTER_TOPIC_PREFIX", "")
GROUP = os.environ.get("GROUP", "seats-in-step")
DSN = os.environ["POSTGRES_DSN"]
TOPIC = "muster.entitlements.seat"

TABLES = """
create table if not exists place (
    topic text not null,
    agency_id text not null,
    epoch bigint not null,
    sequence bigint not null,
    primary key (topic, agency_id)
);
create table if not exists seats_of_agency (
    agency_id text primary key,
    held bigint not null,
    ever_held bigint not null
);
"""


async def main() -> None:
    """Apply batches for as long as it lives."""
    pool = await asyncpg.create_pool(DSN, min_size=1, max_size=2)
    await pool.execute(TABLES)
    consumer = AIOKafkaConsumer(
        PREFIX + TOPIC,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        # A restarted instance takes its old place at once, instead of waiting for the dead one's session to end.
        group_instance_id=f"{GROUP}-1",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with pool, consumer:
        while True:
            batch = await consumer.getmany(timeout_ms=1000, max_records=500)
            records = [record for partition in batch.values() for record in partition]
            if records:
                async with pool.acquire() as connection, connection.transaction():
                    await apply(connection, records)
                await consumer.commit()


async def apply(connection: Any, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
    """Apply records within a transaction. Raises RuntimeError where going on would lose a fact."""
    places: dict[str, Position] = {}
    for record in records:
        decoded = decode(record.headers, record.value, record.key)
        envelope = decoded.envelope
        if isinstance(decoded, NewerMajor):
            raise RuntimeError(f"{envelope.type} needs a newer muster-contracts")
        if envelope.agency_id not in places:
            places[envelope.agency_id] = await locked_place(connection, envelope.agency_id)
        seen = Position(envelope.epoch, envelope.sequence)
        sighting = judge(places[envelope.agency_id], seen)
        if isinstance(sighting, Duplicate):
            continue
        if isinstance(sighting, Gap):
            raise RuntimeError(f"{envelope.agency_id}: events {sighting.first} to {sighting.last} are missing")
        if isinstance(decoded, Decoded):
            await count(connection, decoded)
        places[envelope.agency_id] = seen
    await connection.executemany(
        "update place set epoch = $3, sequence = $4 where topic = $1 and agency_id = $2",
        [(TOPIC, agency_id, place.epoch, place.sequence) for agency_id, place in places.items()],
    )


async def locked_place(connection: Any, agency_id: str) -> Position:
    """The last event applied of an agency's stream, held until the transaction ends."""
    await connection.execute(
        "insert into place (topic, agency_id, epoch, sequence) values ($1, $2, 1, 0) on conflict do nothing",
        TOPIC,
        agency_id,
    )
    row = await connection.fetchrow(
        "select epoch, sequence from place where topic = $1 and agency_id = $2 for update",
        TOPIC,
        agency_id,
    )
    return Position(row["epoch"], row["sequence"])


async def count(connection: Any, fact: Decoded) -> None:
    """The effect: a count, which would be wrong if a fact were applied twice or not at all."""
    match fact.event:
        case SeatAssigned():
            change, assigned = 1, 1
        case SeatRevoked():
            change, assigned = -1, 0
        case _:
            return
    await connection.execute(
        """
        insert into seats_of_agency as s (agency_id, held, ever_held) values ($1, $2, $3)
        on conflict (agency_id) do update
            set held = s.held + excluded.held, ever_held = s.ever_held + excluded.ever_held
        """,
        fact.event.agency_id,
        change,
        assigned,
    )


if __name__ == "__main__":
    asyncio.run(main())
