"""The read side: the register, an agency's enrollment, and its authorizations."""

from collections.abc import Collection
from datetime import datetime

from muster_enrollment.domain.facts import Authorization
from muster_enrollment.replies import AgencyReply, AuthorizationReply, EnrollmentReply
from muster_enrollment.repository import rows
from muster_enrollment.repository.standings import find_standing
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.errors import NotFound
from muster_runtime.pagination import Page, Pagination


async def list_agencies(connection: Connection, agencies: Collection[str], page: Pagination) -> Page[AgencyReply]:
    """The register's agencies with these IDs, or with EVERY_AGENCY all of them, by ID."""
    found = await connection.fetch(
        f"""
        select {rows.AGENCY}
        from agency as a
        where (a.id = any($1::text[]) or $2 = any($1)) and a.id > $3
        order by a.id
        limit $4
        """,  # noqa: S608
        list(agencies),
        EVERY_AGENCY,
        page.after or "",
        page.rows,
    )
    return page.make([AgencyReply.of(rows.agency(row)) for row in found], key=lambda agency: agency.id)


async def find_agency(connection: Connection, agency_id: str) -> AgencyReply:
    """An agency in the register. Raises NotFound."""
    page = await list_agencies(connection, [agency_id], Pagination(limit=1, after=None))
    if not page.items:
        raise NotFound(f"the register has no agency {agency_id}")
    return page.items[0]


async def find_enrollment(connection: Connection, agency_id: str, now: datetime) -> tuple[EnrollmentReply, int | None]:
    """An agency's latest enrollment and its version; a draft has none. Raises NotFound for an unknown agency."""
    standing = await find_standing(connection, agency_id)
    version = standing.enrollment.version if standing.enrollment else None
    return EnrollmentReply.of(standing, now), version


async def list_authorizations(connection: Connection, agency_id: str, page: Pagination) -> Page[AuthorizationReply]:
    """An agency's authorizations by ID. Raises NotFound for an unknown agency."""
    await find_agency(connection, agency_id)
    found = await connection.fetch(
        """
        select authorization_id, number, valid_from, valid_until, recorded_at, revoked_at
        from atu
        where agency_id = $1 and authorization_id > $2
        order by authorization_id
        limit $3
        """,
        agency_id,
        page.after or "",
        page.rows,
    )
    replies = [AuthorizationReply.of(agency_id, Authorization(**row)) for row in found]
    return page.make(replies, key=lambda authorization: authorization.authorization_id)
