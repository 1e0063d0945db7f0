"""The positions of streams: the last sequence that a service assigned, and that a consumer group applied."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from muster_contracts import BEFORE_FIRST, Position
from muster_runtime.database.locks import Lock
from muster_runtime.database.transactions import Connection, UnitOfWork

StreamKey = tuple[str, str]  # topic, agency

_STORE = """
stored as (
    insert into applied (consumer_group, topic, agency_id, epoch, last_sequence)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[])
    on conflict (consumer_group, topic, agency_id)
    do update set epoch = excluded.epoch, last_sequence = excluded.last_sequence
)
"""


class StreamPosition(BaseModel):
    """A position in an API response."""

    epoch: int
    sequence: int


class StreamState(BaseModel):
    """A stream's state in one service.

    A field is null if the service does not produce, or has not applied, any of it.
    """

    topic: str
    agency_id: str
    produced: StreamPosition | None
    applied: StreamPosition | None
    parked: str | None


def lock(group: str, streams: Iterable[StreamKey], patience_seconds: float | None = None) -> Lock:
    """The statement that takes the agencies' locks and reads the streams' positions."""
    topics, agencies = zip(*streams, strict=True)
    return Lock("select * from lock_for_events($1, $2, $3, $4, $5, $6)", (group, topics, agencies), patience_seconds)


def found(uow: UnitOfWork) -> tuple[dict[StreamKey, Position], dict[StreamKey, bool]]:
    """The last applied position of each stream, and for each parked stream, whether it is parked for a gap."""
    rows = uow.found
    applied = {(r["topic"], r["agency_id"]): Position(r["epoch"], r["last_sequence"]) for r in rows if r["epoch"]}
    return applied, {(r["topic"], r["agency_id"]): r["gap"] for r in rows if r["gap"] is not None}


async def of_stream(connection: Connection, group: str, stream: StreamKey) -> Position:
    """The last position that the group has applied of one stream."""
    row = await connection.fetchrow(
        """
        select epoch, last_sequence
        from applied
        where consumer_group = $1 and topic = $2 and agency_id = $3
        """,
        group,
        *stream,
    )
    return Position(row["epoch"], row["last_sequence"]) if row else BEFORE_FIRST


def store(uow: UnitOfWork, group: str, positions: Mapping[StreamKey, Position]) -> None:
    """Store the applied positions with the unit of work, which must hold the agencies' locks."""
    for (topic, agency_id), (epoch, sequence) in positions.items():
        uow.writes.add_row(_STORE, group, topic, agency_id, epoch, sequence, key=(topic, agency_id))


async def states(
    connection: Connection,
    group: str,
    *,
    topic: str | None = None,
    agency_id: str | None = None,
    after: StreamKey = ("", ""),
    limit: int,
) -> list[StreamState]:
    """The state of the service's streams after `after`, ordered by topic and agency."""
    rows = await connection.fetch(
        """
        select
            topic, agency_id, s.epoch as produced_epoch, s.last_sequence as produced,
            a.epoch as applied_epoch, a.last_sequence as applied, p.reason as parked
        from stream as s
        full join (select * from applied where consumer_group = $1) as a using (topic, agency_id)
        full join (select * from parked_stream where consumer_group = $1) as p using (topic, agency_id)
        where
            ($2::text is null or topic = $2)
            and ($3::text is null or agency_id = $3)
            and (topic, agency_id) > ($4, $5)
        order by topic, agency_id
        limit $6
        """,
        group,
        topic,
        agency_id,
        *after,
        limit,
    )
    return [
        StreamState(
            topic=row["topic"],
            agency_id=row["agency_id"],
            produced=_shown(row["produced_epoch"], row["produced"]),
            applied=_shown(row["applied_epoch"], row["applied"]),
            parked=row["parked"],
        )
        for row in rows
    ]


def _shown(epoch: int | None, sequence: int | None) -> StreamPosition | None:
    return None if epoch is None or sequence is None else StreamPosition(epoch=epoch, sequence=sequence)
