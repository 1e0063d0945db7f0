"""The seats of which copies are held: those of the pool's generation that are not revoked."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.repository.grants import to_grant
from muster_runtime.database.transactions import Connection


async def list_pools(connection: Connection) -> list[str]:
    """Every agency that has a pool."""
    rows = await connection.fetch("select agency_id from pool order by agency_id")
    return [row["agency_id"] for row in rows]


async def list_seats(connection: Connection, agency_id: str, after: str, limit: int) -> list[tuple[str, str, HeldSeat]]:
    """The next seats after a seat's ID: ID, subject, and the seat."""
    rows = await connection.fetch(
        """
        select seat_id, subject_ref, state, coalesce(trial_began_at, activated_at) as began_at
        from seat
        where
            agency_id = $1 and seat_id > $2 and state <> 'revoked'
            and generation = (select generation from pool where agency_id = $1)
        order by seat_id
        limit $3
        """,
        agency_id,
        after,
        limit,
    )
    return [(row["seat_id"], row["subject_ref"], _to_seat(row)) for row in rows]


async def find_seats(connection: Connection, agency_id: str, subject_refs: Iterable[str]) -> dict[str, HeldSeat]:
    """The seats of these people, by subject."""
    rows = await connection.fetch(
        """
        select subject_ref, state, coalesce(trial_began_at, activated_at) as began_at
        from seat
        where
            agency_id = $1 and subject_ref = any(string_to_array($2, E'\n')) and state <> 'revoked'
            and generation = (select generation from pool where agency_id = $1)
        """,
        agency_id,
        "\n".join(subject_refs),
    )
    return {row["subject_ref"]: _to_seat(row) for row in rows}


def _to_seat(columns: Mapping[str, Any]) -> HeldSeat:
    return HeldSeat(SeatState(columns["state"]), columns["began_at"])


async def find_grants(
    connection: Connection, agency_id: str, subject_refs: Iterable[str], now: datetime
) -> dict[str, list[Grant]]:
    """The grants of these people alone that hold at an instant or later, by subject."""
    rows = await connection.fetch(
        """
        select
            grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason, revoked_at
        from entitlement_grant
        where
            agency_id = $1 and revoked_at is null and (ends_at is null or ends_at > $3)
            and subject_ref = any(string_to_array($2, E'\n'))
        order by grant_id
        """,
        agency_id,
        "\n".join(subject_refs),
        now,
    )
    found: dict[str, list[Grant]] = {}
    for row in rows:
        found.setdefault(row["subject_ref"], []).append(to_grant(row))
    return found


async def is_publishing(connection: Connection, topic: str, agency_id: str) -> bool:
    """Whether records of an agency still wait in the outbox."""
    waits: bool = await connection.fetchval(
        "select exists (select from outbox where topic = $1 and agency_id = $2)", topic, agency_id
    )
    return waits
