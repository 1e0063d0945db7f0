"""Replays of endpoints, and their progress."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from muster_notify.domain.endpoints import Replay, ReplayState
from muster_runtime.database.transactions import Connection


async def add_replay(connection: Connection, replay: Replay, now: datetime) -> None:
    """Add a running replay."""
    await connection.execute(
        """
        insert into replay (id, agency_id, webhook_id, since, state, requested_at)
        values ($1, $2, $3, $4, 'running', $5)
        """,
        replay.id,
        replay.agency_id,
        replay.webhook_id,
        replay.since,
        now,
    )


async def list_running(connection: Connection, webhook_id: str | None = None) -> list[Replay]:
    """The running replays of one endpoint or of all, oldest first."""
    rows = await connection.fetch(
        """
        select id, agency_id, webhook_id, since, place_agency_id, place_position
        from replay
        where state = 'running' and ($1::text is null or webhook_id = $1)
        order by requested_at, id
        """,
        webhook_id,
    )
    return [Replay(**row) for row in rows]


async def find_next_due(connection: Connection) -> datetime | None:
    """When the oldest running replay was requested; its work has been due since then."""
    earliest: datetime | None = await connection.fetchval(
        "select min(requested_at) from replay where state = 'running'"
    )
    return earliest


async def list_missed(connection: Connection, replay: Replay, limit: int) -> list[Any]:
    """The next deliveries of a replay: ID, agency, and position."""
    rows: list[Any] = await connection.fetch(
        """
        select id, agency_id, position
        from delivery
        where
            recipient = $1 and state = 'failed' and finished_at >= $2
            and (agency_id, position) > ($3, $4)
        order by agency_id, position
        limit $5
        """,
        replay.webhook_id,
        replay.since,
        replay.place_agency_id,
        replay.place_position,
        limit,
    )
    return rows


async def save_progress(
    connection: Connection, replay: Replay, deliveries: Sequence[Any], state: ReplayState, now: datetime
) -> bool:
    """Advance a replay past these deliveries; False if another process took the step, or the replay is over."""
    last = deliveries[-1] if deliveries else None
    advanced = await connection.fetchval(
        """
        update replay
        set
            state = $4,
            replayed = replayed + $5,
            place_agency_id = coalesce($6, place_agency_id),
            place_position = coalesce($7, place_position),
            finished_at = case when $4 = 'running' then null else greatest(requested_at, $8) end
        where id = $1 and state = 'running' and (place_agency_id, place_position) = ($2, $3)
        returning true
        """,
        replay.id,
        replay.place_agency_id,
        replay.place_position,
        state,
        len(deliveries),
        last and last["agency_id"],
        last and last["position"],
        now,
    )
    return advanced is not None
