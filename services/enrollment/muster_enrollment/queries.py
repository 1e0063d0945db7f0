"""The read side."""

from muster_enrollment import repository
from muster_enrollment.domain.facts import Authorization
from muster_enrollment.views import AgencyView, AuthorizationView
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.errors import NotFound


async def list_agencies(connection: Connection, tenant: str, after: str | None, limit: int) -> list[AgencyView]:
    """Agencies by id: those of the register for an operator, its own for an agency. One more than `limit`."""
    rows = await connection.fetch(
        """
        select a.*, array(select domain from agency_domain where holder = a.id order by domain collate "C") as domains
        from agency as a
        where ($1 = $2 or a.id = $1) and a.id > $3
        order by a.id
        limit $4
        """,
        tenant,
        EVERY_AGENCY,
        after or "",
        limit + 1,
    )
    return [AgencyView.of(repository.to_agency(row)) for row in rows]


async def find_agency(connection: Connection, agency_id: str) -> AgencyView:
    """An agency; raises NotFound."""
    found = await list_agencies(connection, agency_id, None, 1)
    if not found:
        raise NotFound(f"the register has no agency {agency_id}")
    return found[0]


async def list_authorizations(
    connection: Connection, agency_id: str, after: str | None, limit: int
) -> list[AuthorizationView]:
    """An agency's authorizations by id. One more than `limit`."""
    rows = await connection.fetch(
        """
        select authorization_id, number, valid_from, valid_until, revoked_at
        from atu
        where agency_id = $1 and authorization_id > $2
        order by authorization_id
        limit $3
        """,
        agency_id,
        after or "",
        limit + 1,
    )
    return [AuthorizationView.of(agency_id, Authorization(**row)) for row in rows]
