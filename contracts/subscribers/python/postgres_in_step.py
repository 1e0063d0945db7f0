"""Keep a table of seats exactly in step with Muster: each fact has its effect once, whatever fails, at any time.

The position in each stream is a row in the same database, and changes in the same transaction as the effects. Postgres
commits first, then Kafka. If the commit to Kafka is lost, records arrive again, and the row shows that they are
duplicates. A lock on the row keeps two instances apart while Kafka moves partitions from one to the other.

If you add a table to a reader that already runs, as `assigned_seat` was added to this one, the table lacks what was
applied before: empty all tables, and start with another GROUP, so that everything is applied again.

It needs `pip install aiokafka cramjam asyncpg`. Run at most as many instances as the topic has partitions.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from connection import for_aiokafka
from log_ids import log_ids
from reading import MustStop, stopping

from muster_contracts import Decoded, Duplicate, Gap, NewEpoch, NewerMajor, Position, decode, judge
from muster_contracts.entitlements import SeatAssigned, SeatRevoked

PREFIX = os.environ.get("MUSTER_TOPIC_PREFIX", "")
GROUP = os.environ.get("GROUP", "seats-in-step")
# With a name that stays the same across restarts, such as its pod's, an instance gets its partitions back at once,
# instead of after its old session has ended. No two instances may have the same name.
INSTANCE = os.environ.get("INSTANCE")
DSN = os.environ["POSTGRES_DSN"]
TOPIC = "muster.entitlements.seat"

TABLES = """
create table if not exists log (
    topic text primary key,
    cluster_id text not null,
    topic_id text not null
);
create table if not exists place (
    topic text not null,
    agency_id text not null,
    epoch bigint not null,
    sequence bigint not null,
    primary key (topic, agency_id)
);
create table if not exists assigned_seat (
    agency_id text not null,
    seat_id text not null,
    primary key (agency_id, seat_id)
);
create table if not exists seats_of_agency (
    agency_id text primary key,
    held bigint not null,
    ever_held bigint not null
);
"""


async def main() -> None:
    """Apply batches until the process ends."""
    pool = await asyncpg.create_pool(DSN, min_size=1, max_size=2)
    async with pool:
        await prepare(pool, *await log_ids(PREFIX + TOPIC))
        consumer = AIOKafkaConsumer(
            PREFIX + TOPIC,
            **for_aiokafka(),
            group_id=GROUP,
            group_instance_id=INSTANCE,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with consumer:
            sys.stderr.write(f"connected, waiting for facts of {TOPIC}\n")
            while True:
                batch = await consumer.getmany(timeout_ms=1000, max_records=500)
                records = [record for partition in batch.values() for record in partition]
                if records:
                    async with pool.acquire() as connection, connection.transaction():
                        await apply(connection, records)
                    await consumer.commit()


async def prepare(pool: Any, cluster_id: str, topic_id: str) -> None:
    """Create the tables, and tie the positions to their log. Raises MustStop if they are tied to another log."""
    async with pool.acquire() as connection, connection.transaction():
        # Instances may start at the same time.
        await connection.execute("select pg_advisory_xact_lock(hashtext('seats-in-step'))")
        await connection.execute(TABLES)
        await connection.execute(
            "insert into log (topic, cluster_id, topic_id) values ($1, $2, $3) on conflict do nothing",
            TOPIC,
            cluster_id,
            topic_id,
        )
        bound = await connection.fetchrow("select cluster_id, topic_id from log where topic = $1", TOPIC)
    if tuple(bound) != (cluster_id, topic_id):
        raise MustStop(
            f"the positions are of topic {bound['topic_id']} on cluster {bound['cluster_id']}, but {PREFIX}{TOPIC} is "
            f"now {topic_id} on {cluster_id}: facts would be silently skipped. Empty the tables to apply all again."
        )


async def apply(connection: Any, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
    """Apply records within a transaction. Raises MustStop if continuing would lose a fact, and MalformedRecord."""
    all_decoded = [decode(record.headers, record.value, record.key) for record in records]
    places = await locked_places(connection, {decoded.envelope.agency_id for decoded in all_decoded})
    for decoded in all_decoded:
        envelope = decoded.envelope
        if isinstance(decoded, NewerMajor):
            raise MustStop(f"{envelope.type} needs a newer muster-contracts")
        seen = Position(envelope.epoch, envelope.sequence)
        sighting = judge(places[envelope.agency_id], seen)
        if isinstance(sighting, Duplicate):
            continue
        if isinstance(sighting, Gap):
            raise MustStop(f"{envelope.agency_id}: events {sighting.first} to {sighting.last} are missing")
        if isinstance(sighting, NewEpoch):
            sys.stderr.write(f"{envelope.agency_id}: reconcile what came after {sighting.before}\n")
        if isinstance(decoded, Decoded):
            await count(connection, decoded)
        places[envelope.agency_id] = seen
    await connection.executemany(
        "update place set epoch = $3, sequence = $4 where topic = $1 and agency_id = $2",
        [(TOPIC, agency_id, place.epoch, place.sequence) for agency_id, place in places.items()],
    )


async def locked_places(connection: Any, agencies: set[str]) -> dict[str, Position]:
    """The last applied position of each agency's stream, locked until the transaction ends.

    The rows are always locked in the same order, so two instances that briefly share agencies never deadlock.
    """
    await connection.execute(
        """
        insert into place (topic, agency_id, epoch, sequence)
        select $1, agency_id, 1, 0 from unnest($2::text[]) as a (agency_id) order by agency_id
        on conflict do nothing
        """,
        TOPIC,
        sorted(agencies),
    )
    rows = await connection.fetch(
        """
        select agency_id, epoch, sequence
        from place
        where topic = $1 and agency_id = any($2::text[])
        order by agency_id
        for update
        """,
        TOPIC,
        sorted(agencies),
    )
    return {row["agency_id"]: Position(row["epoch"], row["sequence"]) for row in rows}


async def count(connection: Any, fact: Decoded) -> None:
    """The effect: a count, which would be wrong if a fact were applied twice or not at all.

    A seat that was reserved or invited, but never assigned, can also be revoked; it was never held.
    """
    match fact.event:
        case SeatAssigned(agency_id=agency_id, seat_id=seat_id):
            change, assigned = 1, 1
            statement = "insert into assigned_seat (agency_id, seat_id) values ($1, $2) on conflict do nothing"
        case SeatRevoked(agency_id=agency_id, seat_id=seat_id):
            change, assigned = -1, 0
            statement = "delete from assigned_seat where agency_id = $1 and seat_id = $2"
        case _:
            return
    status = await connection.execute(statement, agency_id, seat_id)
    rows = int(status.rsplit(" ", 1)[1])
    await connection.execute(
        """
        insert into seats_of_agency as s (agency_id, held, ever_held) values ($1, $2, $3)
        on conflict (agency_id) do update
            set held = s.held + excluded.held, ever_held = s.ever_held + excluded.ever_held
        """,
        agency_id,
        change * rows,
        assigned * rows,
    )


if __name__ == "__main__":
    with stopping():
        asyncio.run(main())
