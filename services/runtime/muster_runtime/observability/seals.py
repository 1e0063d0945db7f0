"""Seals the audit trail: a hash over consecutive rows of an agency, chained to the previous seal and published.

A row is written under its agency's lock. So under the lock, no row with a lower ID than a visible one can still appear,
and exactly the rows after the newest seal's last row are unsealed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg

from muster_contracts import Event
from muster_contracts.audit import NO_SEAL, sealed_sha256
from muster_runtime.database.transactions import Connection, UnitOfWork

# This many rows are read and hashed in about 10 ms, so no command of the agency waits longer for its lock.
SEAL_ROWS = 1_000

_SEAL = """
sealed as (
    insert into audit_seal (agency_id, number, first_id, last_id, count, sha256, previous_sha256, sealed_at)
    select *
    from unnest(
        $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::timestamptz[]
    )
)
"""

# The first row after each agency's newest seal, stepping through the agencies by index. A row whose date no program can
# read cannot be sealed. It counts as very old, so that operators notice it.
_UNSEALED = """
with recursive agency (agency_id) as (
    (select agency_id from audit order by agency_id limit 1)
    union all
    select (select a.agency_id from audit as a where a.agency_id > agency.agency_id order by a.agency_id limit 1)
    from agency
    where agency.agency_id is not null
)
select agency.agency_id, unsealed.recorded_at
from agency
cross join lateral (
    select coalesce(readable_instant(a.recorded_at), '2000-01-01 00:00:00+00') as recorded_at
    from audit as a
    where
        a.agency_id = agency.agency_id
        and a.id > coalesce(
            (select s.last_id from audit_seal as s where s.agency_id = agency.agency_id order by s.number desc limit 1),
            0
        )
    order by a.id
    limit 1
) as unsealed
where agency.agency_id is not null
order by unsealed.recorded_at
"""


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal as it is stored and published."""

    agency_id: str
    number: int
    first_id: int
    last_id: int
    count: int
    sha256: str
    previous_sha256: str
    sealed_at: datetime

    @property
    def facts(self) -> dict[str, Any]:
        """The seal's fields by name."""
        return asdict(self)


async def unsealed_agencies(connection: Connection) -> dict[str, datetime]:
    """The agencies with unsealed rows, each with the time of its oldest one; oldest first."""
    return {row["agency_id"]: row["recorded_at"] for row in await connection.fetch(_UNSEALED)}


async def seal(uow: UnitOfWork, agency_id: str, service: str, event_class: type[Event]) -> Seal | None:
    """Seal an agency's first SEAL_ROWS unsealed rows, and publish the seal; None if there are none."""
    newest = await uow.connection.fetchrow(
        "select number, last_id, sha256 from audit_seal where agency_id = $1 order by number desc limit 1", agency_id
    )
    number, last_id, previous = (newest["number"], newest["last_id"], newest["sha256"]) if newest else (0, 0, NO_SEAL)
    rows = await uow.connection.fetch(
        """
        select
            id, recorded_at, agency_id, actor, command, subject, reason, before, after, request_id, correlation_id
        from audit
        where agency_id = $1 and id > $2
        order by id
        limit $3
        """,
        agency_id,
        last_id,
        SEAL_ROWS,
    )
    if not rows:
        return None
    made = make_seal(rows, service, agency_id, number + 1, previous, uow.now)
    uow.writes.add_row(_SEAL, *made.facts.values())
    uow.publish(event_class(**made.facts))
    return made


def make_seal(
    rows: Sequence[asyncpg.Record], service: str, agency_id: str, number: int, previous_sha256: str, sealed_at: datetime
) -> Seal:
    """The seal of audit rows, which are ordered by ID."""
    sha256 = sealed_sha256(
        map(dict, rows),
        service=service,
        agency_id=agency_id,
        number=number,
        previous_sha256=previous_sha256,
        sealed_at=sealed_at,
    )
    return Seal(agency_id, number, rows[0]["id"], rows[-1]["id"], len(rows), sha256, previous_sha256, sealed_at)
