"""The write side's SQL: the register, and each agency's standing."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from asyncpg import Record

from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain.facts import (
    Acceptance,
    Agency,
    Authorization,
    Branch,
    Closure,
    ContactRole,
    Enrollment,
    Person,
    Standing,
    State,
    Term,
)
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write
from muster_runtime.errors import NotFound


async def load_register(connection: Connection) -> dict[str, Agency]:
    """Every agency of the register by its id."""
    rows = await connection.fetch(
        """
        select a.*, array(select domain from agency_domain where holder = a.id order by domain collate "C") as domains
        from agency as a
        """
    )
    return {row["id"]: to_agency(row) for row in rows}


async def headcount(connection: Connection, agency_id: str) -> int | None:
    """The heads of an agency and of all agencies below it, so far as they are known; None where its own are not."""
    heads: int | None = await connection.fetchval(
        """
        with recursive part as (
            select id, headcount from agency where id = $1
            union all
            select a.id, a.headcount from agency as a inner join part on a.parent = part.id
        )
        select sum(headcount)::bigint
        from part
        where (select headcount from agency where id = $1) is not null
        """,
        agency_id,
    )
    return heads


async def hold_agency(connection: Connection, agency_id: str) -> None:
    """Keep an agency's entry in the register as it is until the transaction ends."""
    await connection.execute("select from agency where id = $1 for share", agency_id)


async def save_agencies(connection: Connection, agencies: Sequence[Agency]) -> None:
    """Insert or update agencies, in one statement: a parent may come after its child."""
    await connection.execute(
        """
        insert into agency (id, name, parent, treasury_code, headcount, branch)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])
        on conflict (id) do update set
            name = excluded.name,
            parent = excluded.parent,
            treasury_code = excluded.treasury_code,
            headcount = excluded.headcount,
            branch = excluded.branch
        """,
        [agency.id for agency in agencies],
        [agency.name for agency in agencies],
        [agency.parent for agency in agencies],
        [agency.treasury_code for agency in agencies],
        [agency.headcount for agency in agencies],
        [agency.branch for agency in agencies],
    )
    await connection.execute(
        "delete from agency_domain where holder = any($1::text[])", [agency.id for agency in agencies]
    )
    domains = [(domain, agency.id) for agency in agencies for domain in agency.domains]
    await connection.execute(
        "insert into agency_domain (domain, holder) select * from unnest($1::text[], $2::text[])",
        [domain for domain, _ in domains],
        [holder for _, holder in domains],
    )


async def live_among(connection: Connection, agencies: Iterable[str]) -> list[str]:
    """Which of the agencies have a live enrollment."""
    rows = await connection.fetch(
        """
        select agency_id
        from enrollment
        where closed_at is null and agency_id = any($1::text[])
        order by agency_id
        """,
        list(agencies),
    )
    return [row["agency_id"] for row in rows]


async def load_standing(connection: Connection, agency_id: str) -> Standing:
    """An agency's standing: its latest enrollment, every authorization and acceptance.

    Raises NotFound when the register has no such agency.
    """
    rows = await connection.fetch(
        """
        select
            fact.*,
            a.id, a.name, a.parent, a.treasury_code, a.headcount, a.branch,
            array(select domain from agency_domain where holder = a.id order by domain collate "C") as domains,
            e.*
        from agency as a
        left join lateral (
            select *
            from enrollment
            where agency_id = a.id
            order by number desc
            limit 1
        ) as e on true
        left join lateral (
            select
                authorization_id, number as authorization_number, valid_from, valid_until, revoked_at,
                null as acceptance_id, null as terms_version, null as accepted_at
            from atu
            where agency_id = a.id
            union all
            select null, null, null, null, null, acceptance_id, terms_version, accepted_at
            from data_use_acceptance
            where agency_id = a.id
        ) as fact on true
        where a.id = $1
        order by valid_from, authorization_id, accepted_at, acceptance_id
        """,
        agency_id,
    )
    if not rows:
        raise NotFound(f"the register has no agency {agency_id}")
    first = rows[0]
    return Standing(
        agency=to_agency(first),
        enrollment=to_enrollment(first) if first["enrollment_id"] else None,
        authorizations=tuple(Authorization(*row[:5]) for row in rows if row["authorization_id"]),
        acceptances=tuple(Acceptance(*row[5:8]) for row in rows if row["acceptance_id"]),
    )


def save_enrollment(enrollment: Enrollment) -> Write:
    """Insert an enrollment, or save what it has become under its next version."""
    return (
        """
        saved_enrollment as (
            insert into enrollment as e (
                enrollment_id, agency_id, number, seats, requested_start, contact_ref, submitted_at,
                state, changed_at, starts_at, ends_at, suspension_reason, closed_at, closing_reason, version
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1)
            on conflict (enrollment_id) do update set
                state = excluded.state,
                changed_at = excluded.changed_at,
                starts_at = excluded.starts_at,
                ends_at = excluded.ends_at,
                suspension_reason = excluded.suspension_reason,
                closed_at = excluded.closed_at,
                closing_reason = excluded.closing_reason,
                version = e.version + 1
        )
        """,
        [
            enrollment.enrollment_id,
            enrollment.agency_id,
            enrollment.number,
            enrollment.seats,
            enrollment.requested_start,
            enrollment.contact_ref,
            enrollment.submitted_at,
            enrollment.state,
            enrollment.changed_at,
            enrollment.term.starts_at if enrollment.term else None,
            enrollment.term.ends_at if enrollment.term else None,
            enrollment.suspension_reason,
            enrollment.closure.closed_at if enrollment.closure else None,
            enrollment.closure.reason if enrollment.closure else None,
        ],
    )


async def insert_contact(
    connection: Connection, agency_id: str, contact_ref: str, role: ContactRole, person: Person, now: datetime
) -> None:
    """Insert a person who speaks or signs for an agency."""
    await connection.execute(
        """
        insert into contact (contact_ref, agency_id, role, name, email, recorded_at)
        values ($1, $2, $3, $4, $5, $6)
        """,
        contact_ref,
        agency_id,
        role,
        person.name,
        person.email,
        now,
    )


async def contacts(
    connection: Connection, agency_id: str, roles: Sequence[ContactRole] = tuple(ContactRole)
) -> list[str]:
    """The references of an agency's contacts in these roles who are not erased."""
    rows = await connection.fetch(
        "select contact_ref from contact where agency_id = $1 and role = any($2::text[]) and erased_at is null",
        agency_id,
        list(roles),
    )
    return [row["contact_ref"] for row in rows]


async def erase_contacts(connection: Connection, contact_refs: Sequence[str], now: datetime) -> list[str]:
    """Erase contacts' names and addresses; answers whose they were."""
    rows = await connection.fetch(
        """
        update contact
        set name = null, email = null, erased_at = $2
        where contact_ref = any($1::text[]) and erased_at is null
        returning contact_ref
        """,
        contact_refs,
        now,
    )
    return [row["contact_ref"] for row in rows]


def insert_authorization(
    agency_id: str, authorization: Authorization, issuer: str, product: str, now: datetime
) -> Write:
    """Insert an authorization to use."""
    return (
        """
        inserted_atu as (
            insert into atu (
                authorization_id, agency_id, number, issuer, product, valid_from, valid_until, recorded_at
            )
            values ($1, $2, $3, $4, $5, $6, $7, $8)
        )
        """,
        [
            authorization.authorization_id,
            agency_id,
            authorization.number,
            issuer,
            product,
            authorization.valid_from,
            authorization.valid_until,
            now,
        ],
    )


async def revoke_authorization(connection: Connection, authorization_id: str, reason: str, now: datetime) -> None:
    """Mark an authorization as revoked."""
    await connection.execute(
        "update atu set revoked_at = $2, revocation_reason = $3 where authorization_id = $1",
        authorization_id,
        now,
        reason,
    )


async def insert_acceptance(
    connection: Connection, agency_id: str, acceptance: Acceptance, signer_ref: str, evidence_sha256: str
) -> None:
    """Insert an acceptance of the data-use terms."""
    await connection.execute(
        """
        insert into data_use_acceptance (
            acceptance_id, agency_id, terms_version, signer_ref, evidence_sha256, accepted_at
        )
        values ($1, $2, $3, $4, $5, $6)
        """,
        acceptance.acceptance_id,
        agency_id,
        acceptance.terms_version,
        signer_ref,
        evidence_sha256,
        acceptance.accepted_at,
    )


def to_agency(row: Record) -> Agency:
    """An agency from a row that has its columns and its domains."""
    return Agency(
        id=row["id"],
        name=row["name"],
        parent=row["parent"],
        treasury_code=row["treasury_code"],
        domains=tuple(row["domains"]),
        headcount=row["headcount"],
        branch=Branch(row["branch"]),
    )


def to_enrollment(row: Record) -> Enrollment:
    """An enrollment from its row."""
    return Enrollment(
        enrollment_id=row["enrollment_id"],
        agency_id=row["agency_id"],
        number=row["number"],
        state=State(row["state"]),
        seats=row["seats"],
        requested_start=row["requested_start"],
        contact_ref=row["contact_ref"],
        submitted_at=row["submitted_at"],
        changed_at=row["changed_at"],
        term=Term(row["starts_at"], row["ends_at"]) if row["starts_at"] else None,
        suspension_reason=SuspensionReason(row["suspension_reason"]) if row["suspension_reason"] else None,
        closure=Closure(row["closed_at"], row["closing_reason"]) if row["closed_at"] else None,
        version=row["version"],
    )
