"""Seals of the audit: a hash over consecutive rows of an agency, chained to the seal before, and published.

A row is written under its agency's lock, so under the lock no row of the agency is still to come with a lower id than
one that can be seen: what is above the newest seal's last row is all that is unsealed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg

from muster_contracts import Event
from muster_contracts.audit import NO_SEAL, sealed_sha256
from muster_runtime.database.transactions import Connection, UnitOfWork

# So many rows are read and hashed within some 10 ms: no command of the agency waits longer for its lock.
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

# The first row above each agency's newest seal. It steps from one agency to the next by the index. A row whose date no
# program can read, and which therefore cannot be sealed, counts as very old: operators learn of it.
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
    """A seal, as it is stored and published."""

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
        """Its fields by name."""
        return asdict(self)


# A seal as the event that publishes it.
SealEvent = Callable[[Seal], Event]


async def unsealed_agencies(connection: Connection) -> dict[str, datetime]:
    """The agencies with rows that are not sealed, each with when its oldest one was recorded; the oldest first."""
    return {row["agency_id"]: row["recorded_at"] for row in await connection.fetch(_UNSEALED)}


async def seal(uow: UnitOfWork, agency_id: str, service: str, event_of: SealEvent) -> Seal | None:
    """Seal the first SEAL_ROWS rows of an agency that are not sealed, and publish that; None if there is none."""
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
    uow.publish(event_of(made))
    return made


def make_seal(
    rows: Sequence[asyncpg.Record], service: str, agency_id: str, number: int, previous_sha256: str, sealed_at: datetime
) -> Seal:
    """The seal of audit rows, which are in the order of their ids."""
    sha256 = sealed_sha256(
        map(dict, rows),
        service=service,
        agency_id=agency_id,
        number=number,
        previous_sha256=previous_sha256,
        sealed_at=sealed_at,
    )
    return Seal(agency_id, number, rows[0]["id"], rows[-1]["id"], len(rows), sha256, previous_sha256, sealed_at)
