"""Grants of features."""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.quotas import WHOLE_AGENCY
from muster_runtime.database.array_literals import array
from muster_runtime.database.transactions import Connection
from muster_runtime.pacing import Pace

_GRANT = """
    select
        grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason, revoked_at
    from entitlement_grant
"""


async def add_grant(connection: Connection, grant: Grant, now: datetime) -> None:
    """Add a grant."""
    await connection.execute(
        """
        insert into entitlement_grant (
            grant_id, agency_id, feature, subject_ref, mode, monthly_quota, starts_at, ends_at, reason, granted_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        grant.grant_id,
        grant.agency_id,
        grant.feature,
        grant.subject_ref,
        grant.mode,
        grant.monthly_quota,
        grant.starts_at,
        grant.ends_at,
        grant.reason,
        now,
    )


async def save_revocation(connection: Connection, grant: Grant, now: datetime) -> None:
    """Store that a grant is revoked."""
    await connection.execute(
        "update entitlement_grant set revoked_at = $3 where agency_id = $1 and grant_id = $2",
        grant.agency_id,
        grant.grant_id,
        now,
    )


async def find_grant(connection: Connection, agency_id: str, grant_id: str) -> Grant | None:
    """A grant by its ID."""
    row = await connection.fetchrow(f"{_GRANT} where agency_id = $1 and grant_id = $2", agency_id, grant_id)
    return to_grant(row) if row else None


async def list_grants(connection: Connection, agency_id: str, after: str, limit: int) -> list[Grant]:
    """Grants of an agency, oldest first."""
    rows = await connection.fetch(
        f"{_GRANT} where agency_id = $1 and grant_id > $2 order by grant_id limit $3", agency_id, after, limit
    )
    return [to_grant(row) for row in rows]


async def list_standing(
    connection: Connection, agency_id: str, subject_refs: Iterable[str], now: datetime, feature: str | None = None
) -> list[Grant]:
    """The grants to an agency and these people that are in force at an instant or later, of one feature or all."""
    rows = await connection.fetch(
        f"""
        {_GRANT}
        where
            agency_id = $1 and revoked_at is null and (ends_at is null or ends_at > $3)
            and (subject_ref is null or subject_ref = any($2::text[])) and ($4::text is null or feature = $4)
        order by grant_id
        """,
        agency_id,
        list(subject_refs),
        now,
        feature,
    )
    grants, pace = [], Pace()
    for row in rows:
        await pace.keep()
        grants.append(to_grant(row))
    return grants


async def list_over(
    connection: Connection, agency_id: str, subject_ref: str, feature: str, since: datetime, now: datetime
) -> list[Grant]:
    """The grants of a feature to an agency and a person that were in force since an instant, but are no longer."""
    rows = await connection.fetch(
        f"""
        {_GRANT}
        where
            agency_id = $1 and feature = $3 and (subject_ref is null or subject_ref = $2)
            and (revoked_at is not null or ends_at <= $5)
            and least(ends_at, revoked_at) > greatest(starts_at, $4)
        order by grant_id
        """,
        agency_id,
        subject_ref,
        feature,
        since,
        now,
    )
    return [to_grant(row) for row in rows]


async def find_turns_of_quotas(connection: Connection, agency_id: str, now: datetime) -> dict[str, datetime | None]:
    """When a grant with a quota, to an agency or any of its people, next begins or ends, by feature.

    It has each feature with such a grant that is in force at an instant or later; None if nothing begins or ends.
    """
    rows = await connection.fetch(
        """
        select feature, min(case when starts_at > $2 then starts_at else ends_at end) as turn
        from entitlement_grant
        where
            agency_id = $1 and mode = 'quota' and revoked_at is null and (ends_at is null or ends_at > $2)
        group by feature
        """,
        agency_id,
        now,
    )
    return {row["feature"]: row["turn"] for row in rows}


async def list_turned(connection: Connection, agency_id: str, since: datetime, now: datetime, most: int) -> list[str]:
    """The subjects whose grants with a quota began or ended within [since, now], in order; at most `most`."""
    rows = await connection.fetch(
        """
        select distinct coalesce(subject_ref, $5) as subject
        from entitlement_grant
        where
            agency_id = $1 and mode = 'quota' and revoked_at is null
            and (starts_at between $2 and $3 or ends_at between $2 and $3)
        order by subject
        limit $4
        """,
        agency_id,
        since,
        now,
        most,
        WHOLE_AGENCY,
    )
    return [row["subject"] for row in rows]


async def list_overlapping(
    connection: Connection, people: Mapping[str, Collection[str]], since: datetime
) -> list[Grant]:
    """The grants to agencies and these people that are in force at an instant or later. `people` is by agency."""
    rows = await connection.fetch(
        f"""
        {_GRANT}
        where
            agency_id = any($1::text[]) and (subject_ref is null or subject_ref = any($2::text::text[]))
            and (ends_at is null or ends_at > $3) and (revoked_at is null or revoked_at > $3)
        """,
        list(people),
        array({subject_ref for subject_refs in people.values() for subject_ref in subject_refs}),
        since,
    )
    return [to_grant(row) for row in rows]


def to_grant(columns: Mapping[str, Any]) -> Grant:
    """A grant from its columns."""
    return Grant(**{**columns, "mode": AccessMode(columns["mode"])})


def read_grants(document: str | None) -> tuple[Grant, ...]:
    """The grants of a JSON list of rows; null is an empty list."""
    if document is None:
        return ()
    return tuple(to_grant({name: _instant(name, value) for name, value in row.items()}) for row in json.loads(document))


def _instant(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name.endswith("_at") and value is not None else value
