"""The SQL of agencies' standings: enrollments, authorizations, and acceptances."""

from datetime import datetime

from muster_enrollment.domain.facts import Acceptance, Authorization, Enrollment, Standing
from muster_enrollment.repository import rows
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write
from muster_runtime.errors import NotFound


async def find_standing(connection: Connection, agency_id: str) -> Standing:
    """An agency's standing: its latest enrollment, and every authorization and acceptance.

    Raises NotFound if the register has no such agency.
    """
    found = await connection.fetch(
        f"""
        select fact.*, {rows.AGENCY}, e.*, (select facts_in_doubt()) as in_doubt
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
                authorization_id, number as authorization_number, valid_from, valid_until, recorded_at, revoked_at,
                null as acceptance_id, null as terms_version, null as accepted_at
            from atu
            where agency_id = a.id
            union all
            select null, null, null, null, null, null, acceptance_id, terms_version, accepted_at
            from data_use_acceptance
            where agency_id = a.id
        ) as fact on true
        where a.id = $1
        order by valid_from, authorization_id, accepted_at, acceptance_id
        """,  # noqa: S608
        agency_id,
    )
    if not found:
        raise NotFound(f"the register has no agency {agency_id}")
    first = found[0]
    return Standing(
        agency=rows.agency(first),
        enrollment=rows.enrollment(first) if first["enrollment_id"] else None,
        authorizations=tuple(Authorization(*row[:6]) for row in found if row["authorization_id"]),
        acceptances=tuple(Acceptance(*row[6:9]) for row in found if row["acceptance_id"]),
        in_doubt=first["in_doubt"],
    )


def save_enrollment(enrollment: Enrollment) -> Write:
    """Add an enrollment, or save its new state as its next version.

    Versions continue from one enrollment of an agency to the next, so that no ETag of an earlier one matches.
    """
    return (
        """
        saved_enrollment as (
            insert into enrollment as e (
                enrollment_id, agency_id, number, seats, requested_start, contact_ref, submitted_at,
                state, changed_at, starts_at, ends_at, suspension_reason, closed_at, closing_reason, time_zone,
                continues, version
            )
            values (
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                coalesce((select max(version) from enrollment where agency_id = $2), 0) + 1
            )
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
            enrollment.time_zone,
            list(enrollment.continues),
        ],
    )


def add_authorization(agency_id: str, authorization: Authorization, issuer: str, product: str) -> Write:
    return (
        """
        added_atu as (
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
            authorization.recorded_at,
        ],
    )


async def save_revocation(connection: Connection, authorization_id: str, reason: str, now: datetime) -> None:
    await connection.execute(
        "update atu set revoked_at = $2, revocation_reason = $3 where authorization_id = $1",
        authorization_id,
        now,
        reason,
    )


async def add_acceptance(
    connection: Connection, agency_id: str, acceptance: Acceptance, signer_ref: str, evidence_sha256: str
) -> None:
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
