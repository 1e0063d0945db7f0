"""The seats of which copies are held: those of the pool's generation that are not revoked."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.domain.snapshots import Own
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


async def find_own(
    connection: Connection, agency_id: str, subject_refs: Iterable[str], now: datetime
) -> dict[str, Own]:
    """What these subjects alone have at an instant or later, by subject; none of who has nothing."""
    rows = await connection.fetch(
        """
        select
            subject_ref, feature, starts_at, ends_at, grant_id, mode, monthly_quota, reason,
            null::bigint as used, null::bigint as quota
        from entitlement_grant
        where
            agency_id = $1 and revoked_at is null and (ends_at is null or ends_at > $3)
            and subject_ref = any(string_to_array($2, E'\n'))
        union all
        select subject_ref, feature, starts_at, ends_at, null, null, null, null, used, quota
        from quota_use
        where agency_id = $1 and ends_at > $3 and subject_ref = any(string_to_array($2, E'\n'))
        order by grant_id, feature
        """,
        agency_id,
        "\n".join(subject_refs),
        now,
    )
    found: defaultdict[str, tuple[list[Grant], list[PublishedUse]]] = defaultdict(lambda: ([], []))
    for subject_ref, feature, starts_at, ends_at, grant_id, mode, monthly_quota, reason, used, quota in rows:
        grants, uses = found[subject_ref]
        if grant_id is None:
            uses.append(PublishedUse(agency_id, subject_ref, feature, used, quota, starts_at, ends_at))
        else:
            access = AccessMode(mode)
            grants.append(
                Grant(grant_id, agency_id, feature, subject_ref, access, monthly_quota, starts_at, ends_at, reason)
            )
    return {subject_ref: Own(tuple(grants), tuple(uses)) for subject_ref, (grants, uses) in found.items()}


async def find_agency_uses(connection: Connection, agency_id: str, now: datetime) -> list[PublishedUse]:
    """What is used at an instant of the quotas that are the whole agency's."""
    rows = await connection.fetch(
        """
        select agency_id, subject_ref, feature, used, quota, starts_at, ends_at
        from quota_use
        where agency_id = $1 and subject_ref = '' and ends_at > $2
        order by feature
        """,
        agency_id,
        now,
    )
    return [PublishedUse(**row) for row in rows]


async def is_publishing(connection: Connection, topic: str, agency_id: str) -> bool:
    """Whether records of an agency still wait in the outbox."""
    waits: bool = await connection.fetchval(
        "select exists (select from outbox where topic = $1 and agency_id = $2)", topic, agency_id
    )
    return waits
