"""Where each stream stands: the last sequence that a service has given out, and that a consumer group has applied."""

from collections.abc import Iterable, Mapping

from muster_runtime.db import Connection

StreamKey = tuple[str, str]  # topic, agency
Position = tuple[int, int]  # epoch, sequence

# Before the first event of a stream: the next one is number 1.
START: Position = (1, 0)


async def read(
    connection: Connection, group: str, streams: Iterable[StreamKey]
) -> tuple[dict[StreamKey, Position], set[StreamKey]]:
    """The last position that the group has applied of each stream, and which of them are parked."""
    keys = list(streams)
    rows = await connection.fetch(
        """
        select k.topic, k.agency_id, a.epoch, a.last_sequence, p.topic is not null as parked
        from unnest($2::text[], $3::text[]) as k(topic, agency_id)
        left join applied as a
            on a.consumer_group = $1 and a.topic = k.topic and a.agency_id = k.agency_id
        left join parked_stream as p
            on p.consumer_group = $1 and p.topic = k.topic and p.agency_id = k.agency_id
        """,
        group,
        [topic for topic, _ in keys],
        [agency_id for _, agency_id in keys],
    )
    applied = {(r["topic"], r["agency_id"]): (r["epoch"], r["last_sequence"]) for r in rows if r["epoch"]}
    return applied, {(r["topic"], r["agency_id"]) for r in rows if r["parked"]}


async def of_stream(connection: Connection, group: str, stream: StreamKey) -> Position:
    """The last position that the group has applied of one stream."""
    applied, _ = await read(connection, group, [stream])
    return applied.get(stream, START)


async def store(connection: Connection, group: str, positions: Mapping[StreamKey, Position]) -> None:
    """Keep what the group has applied; the transaction must hold the agencies' locks."""
    if not positions:
        return
    await connection.execute(
        """
        insert into applied (consumer_group, topic, agency_id, epoch, last_sequence)
        select $1, * from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[])
        on conflict (consumer_group, topic, agency_id)
        do update set epoch = excluded.epoch, last_sequence = excluded.last_sequence
        """,
        group,
        [topic for topic, _ in positions],
        [agency_id for _, agency_id in positions],
        [epoch for epoch, _ in positions.values()],
        [sequence for _, sequence in positions.values()],
    )
