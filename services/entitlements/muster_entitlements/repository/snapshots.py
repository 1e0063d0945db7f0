"""What snapshots are made from: unrevoked seats of the pool's generation, and what people have besides them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from asyncpg import Record

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.domain.snapshots import FurtherUse, Own
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
    """What these people have besides their seats at an instant or later, by subject. Those without are left out."""
    rows = await connection.fetch(
        """
        select
            subject_ref, feature, starts_at, ends_at, grant_id, mode, monthly_quota, reason,
            null::bigint as used, null::bigint as charged, null::bigint as quota
        from entitlement_grant
        where
            agency_id = $1 and revoked_at is null and (ends_at is null or ends_at > $3)
            and subject_ref = any(string_to_array($2, E'\n'))
        union all
        select subject_ref, feature, starts_at, ends_at, null, null, null, null, used, charged, quota
        from quota_use
        where agency_id = $1 and ends_at > $3 and subject_ref = any(string_to_array($2, E'\n'))
        union all
        select subject_ref, feature, starts_at, ends_at, null, null, null, null, null, null, null
        from quota_grant
        where
            agency_id = $1 and spent < amount and (ends_at is null or ends_at > $3)
            and subject_ref = any(string_to_array($2, E'\n'))
        order by grant_id, feature, starts_at, ends_at
        """,
        agency_id,
        "\n".join(subject_refs),
        now,
    )
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for row in rows:
        found[row["subject_ref"]].append(row)
    return {subject_ref: _to_own(agency_id, own) for subject_ref, own in found.items()}


async def find_agency_own(connection: Connection, agency_id: str, now: datetime) -> Own:
    """What all people of an agency share at an instant or later: the use of its quotas, and further uses."""
    rows = await connection.fetch(
        """
        select subject_ref, feature, starts_at, ends_at, null as grant_id, used, charged, quota
        from quota_use
        where agency_id = $1 and subject_ref = '' and ends_at > $2
        union all
        select subject_ref, feature, starts_at, ends_at, null, null, null, null
        from quota_grant
        where agency_id = $1 and subject_ref = '' and spent < amount and (ends_at is null or ends_at > $2)
        order by feature, starts_at, ends_at
        """,
        agency_id,
        now,
    )
    return _to_own(agency_id, rows)


def _to_own(agency_id: str, rows: Iterable[Record]) -> Own:
    """Convert rows: one with a grant ID is a grant, one with `used` is the use of a quota, another is further uses."""
    grants, uses, further = [], [], []
    for row in rows:
        span = row["starts_at"], row["ends_at"]
        if row["grant_id"] is not None:
            mode = AccessMode(row["mode"])
            of = row["feature"], row["subject_ref"], mode, row["monthly_quota"]
            grants.append(Grant(row["grant_id"], agency_id, *of, *span, row["reason"]))
        elif row["used"] is not None:
            amounts = row["used"], row["charged"], row["quota"]
            uses.append(PublishedUse(agency_id, row["subject_ref"], row["feature"], *amounts, *span))
        else:
            further.append(FurtherUse(row["feature"], *span))
    return Own(tuple(grants), tuple(uses), tuple(further))


async def is_publishing(connection: Connection, topic: str, agency_id: str) -> bool:
    """Whether records of an agency still wait in the outbox."""
    waits: bool = await connection.fetchval(
        "select exists (select from outbox where topic = $1 and agency_id = $2)", topic, agency_id
    )
    return waits
