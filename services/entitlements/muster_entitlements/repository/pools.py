"""Pools of seats, and billing's terms."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime

from muster_contracts.billing import TermStarted
from muster_entitlements.domain.pools import Outlook, Pool, Standing, first_revision
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write

# The columns of a pool; the table's alias is p.
COLUMNS = ", ".join(f"p.{field.name}" for field in fields(Pool))

_POOL = f"select {COLUMNS} from pool as p"  # noqa: S608


async def find_pool(connection: Connection, agency_id: str) -> Pool | None:
    """An agency's pool; None if the agency has never been enrolled."""
    row = await connection.fetchrow(f"{_POOL} where agency_id = $1", agency_id)
    return Pool(**row) if row else None


async def find_enrolled(connection: Connection, agencies: Collection[str]) -> set[str]:
    """Those of the agencies that have a pool."""
    rows = await connection.fetch("select agency_id from pool where agency_id = any($1::text[])", list(agencies))
    return {row["agency_id"] for row in rows}


async def list_open_pools(connection: Connection) -> Sequence[Pool]:
    """All pools that are not over, in order of agency."""
    rows = await connection.fetch(f"{_POOL} where withdrawn_at is null and not ended order by agency_id")
    return [Pool(**row) for row in rows]


async def find_pool_and_standing(
    connection: Connection, agency_id: str, subject_ref: str
) -> tuple[Pool | None, Standing]:
    """An agency's pool, and what a person has in it; a seat that is kept for them counts."""
    row = await connection.fetchrow(
        f"""
        select
            {COLUMNS},
            (
                select seat_id
                from seat
                where
                    agency_id = p.agency_id and subject_ref = $2 and state <> 'revoked'
                    and generation = p.generation
            ) as held_seat_id,
            exists (
                select
                from entitlement_grant
                where agency_id = p.agency_id and subject_ref = $2 and revoked_at is null
            ) or exists (
                select from quota_use where agency_id = p.agency_id and subject_ref = $2
            ) or exists (
                select from quota_grant where agency_id = p.agency_id and subject_ref = $2 and spent < amount
            ) as owning,
            least(
                (
                    select min(coalesce(trial_began_at, activated_at))
                    from seat
                    where
                        agency_id = p.agency_id and subject_ref = $2
                        and coalesce(trial_began_at, activated_at) is not null and activated_at is not null
                ),
                (select began_at from seat_trial where agency_id = p.agency_id and subject_ref = $2)
            ) as began_at
        from pool as p
        where agency_id = $1
        """,  # noqa: S608
        agency_id,
        subject_ref,
    )
    if row is None:
        return None, Standing(None, owning=False)
    *pool, held_seat_id, owning, began_at = row
    return Pool(*pool), Standing(held_seat_id, owning, began_at)


async def save_pool(connection: Connection, pool: Pool) -> None:
    """Store an agency's pool, which replaces that of an earlier enrollment."""
    await connection.execute(
        """
        insert into pool (
            agency_id, enrollment_id, starts_at, ends_at, suspended, withdrawn_at, ended,
            cap, in_use, limit_met, revision, generation, revoking, time_zone
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict (agency_id) do update set
            enrollment_id = excluded.enrollment_id,
            starts_at = excluded.starts_at,
            ends_at = excluded.ends_at,
            suspended = excluded.suspended,
            withdrawn_at = excluded.withdrawn_at,
            ended = excluded.ended,
            cap = excluded.cap,
            in_use = excluded.in_use,
            limit_met = excluded.limit_met,
            revision = excluded.revision,
            generation = excluded.generation,
            revoking = excluded.revoking,
            time_zone = excluded.time_zone
        """,
        pool.agency_id,
        pool.enrollment_id,
        pool.starts_at,
        pool.ends_at,
        pool.suspended,
        pool.withdrawn_at,
        pool.ended,
        pool.cap,
        pool.in_use,
        pool.limit_met,
        pool.revision,
        pool.generation,
        pool.revoking,
        pool.time_zone,
    )


async def save_suspension(connection: Connection, agency_id: str, enrollment_id: str, *, suspended: bool) -> None:
    """Suspend or reinstate the pool of an enrollment."""
    await connection.execute(
        """
        update pool
        set suspended = $3, revision = revision + 1
        where agency_id = $1 and enrollment_id = $2
        """,
        agency_id,
        enrollment_id,
        suspended,
    )


async def save_withdrawal(connection: Connection, agency_id: str, enrollment_id: str, withdrawn_at: datetime) -> bool:
    """Withdraw the pool of an enrollment; False if the agency has no such pool."""
    tag = await connection.execute(
        """
        update pool
        set
            withdrawn_at = $3,
            ends_at = greatest(starts_at, least(ends_at, $3)),
            revision = revision + 1
        where agency_id = $1 and enrollment_id = $2
        """,
        agency_id,
        enrollment_id,
        withdrawn_at,
    )
    return tag == "UPDATE 1"


async def save_extension(connection: Connection, agency_id: str, ends_at: datetime) -> None:
    """Extend a pool's term."""
    await connection.execute(
        """
        update pool
        set ends_at = greatest(ends_at, $2), revision = revision + 1
        where agency_id = $1
        """,
        agency_id,
        ends_at,
    )


async def save_end(connection: Connection, agency_id: str) -> None:
    """Store that a pool's term was completed and no other follows."""
    await connection.execute("update pool set ended = true, revision = revision + 1 where agency_id = $1", agency_id)


def save_seats_in_use(agency_id: str, change: int, *, limit_met: bool) -> Write:
    """Add assigned seats to `in_use`, or subtract revoked ones with a negative change."""
    return (
        """
        counted_seats as (
            update pool
            set in_use = in_use + $2, limit_met = $3, revision = revision + 1
            where agency_id = $1
        )
        """,
        [agency_id, change, limit_met],
    )


async def save_cap(connection: Connection, agency_id: str, cap: int, *, limit_met: bool) -> None:
    """Set the agreed number of seats."""
    await connection.execute(
        "update pool set cap = $2, limit_met = $3, revision = revision + 1 where agency_id = $1",
        agency_id,
        cap,
        limit_met,
    )


async def save_revision(connection: Connection, *agencies: str) -> None:
    """Increase the revision, because the agencies' entitlements have changed."""
    await connection.execute(
        "update pool set revision = revision + 1 where agency_id = any($1::text[])", list(agencies)
    )


async def save_revision_above(connection: Connection, agency_id: str, revision: int) -> None:
    """Increase the revision above its value and another one, which may be from before the database was restored."""
    await connection.execute(
        "update pool set revision = greatest(revision, $2) + 1 where agency_id = $1", agency_id, revision
    )


async def save_revisions_of_epoch(connection: Connection, epoch: int) -> None:
    """Continue all agencies' revisions in a raised epoch, above every revision that was ever answered.

    It runs in the transaction that raises the epoch: after every restore, before the service answers again.
    """
    await connection.execute("update pool set revision = greatest(revision + 1, $1)", first_revision(epoch))


async def find_first_revision(connection: Connection) -> int:
    """The first revision of the current epoch."""
    return first_revision(await connection.fetchval("select number from epoch"))


async def add_terms(connection: Connection, terms: Sequence[TermStarted]) -> None:
    """Add terms, with the enrollment that each belongs to."""
    await connection.execute(
        """
        insert into term (agency_id, term_id, enrollment_id)
        select * from unnest($1::text[], $2::text[], $3::text[])
        on conflict (agency_id, term_id) do nothing
        """,
        [term.agency_id for term in terms],
        [term.term_id for term in terms],
        [term.enrollment_id for term in terms],
    )


async def save_renewal(connection: Connection, agency_id: str, term_id: str, renewed_to: datetime) -> str | None:
    """Store the new end after a renewal; returns the enrollment, or None for an unknown term."""
    enrollment_id: str | None = await connection.fetchval(
        """
        update term set renewed_to = $3
        where agency_id = $1 and term_id = $2
        returning enrollment_id
        """,
        agency_id,
        term_id,
        renewed_to,
    )
    return enrollment_id


async def save_ended_term(connection: Connection, agency_id: str, term_id: str) -> tuple[str, datetime | None] | None:
    """Store that a term ended without renewal; returns the enrollment and the end after an accepted renewal, if any.

    None for an unknown term.
    """
    row = await connection.fetchrow(
        """
        update term set ended = true
        where agency_id = $1 and term_id = $2
        returning enrollment_id, renewed_to
        """,
        agency_id,
        term_id,
    )
    return (row["enrollment_id"], row["renewed_to"]) if row else None


async def find_outlook(connection: Connection, agency_id: str, enrollment_id: str) -> Outlook:
    """What billing has published so far about an enrollment's terms."""
    renewed_to, ended = await connection.fetchrow(
        """
        select max(renewed_to), coalesce(bool_or(ended), false)
        from term
        where agency_id = $1 and enrollment_id = $2
        """,
        agency_id,
        enrollment_id,
    ) or (None, False)
    return Outlook(renewed_to, ended)
