"""The read side of grants."""

from datetime import datetime

from muster_entitlements.errors import GrantUnknown
from muster_entitlements.replies.grants import GrantReply
from muster_entitlements.repository import grants, history
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Page, Pagination


async def list_grants(connection: Connection, agency_id: str, page: Pagination, now: datetime) -> Page[GrantReply]:
    """Grants of an agency, including those that are over, oldest first."""
    found = await grants.list_grants(connection, agency_id, page.after or "", page.rows)
    return page.make([GrantReply.of(grant, now) for grant in found], key=lambda grant: grant.grant_id)


async def list_recorded_grants(
    connection: Connection, agency_id: str, page: Pagination, recorded_at: datetime
) -> Page[GrantReply]:
    """Grants of an agency as they were recorded at an instant, oldest first."""
    found = await history.list_recorded_grants(connection, agency_id, recorded_at, page.after or "", page.rows)
    return page.make([GrantReply.of(grant, recorded_at) for grant in found], key=lambda grant: grant.grant_id)


async def find_grant(connection: Connection, agency_id: str, grant_id: str, now: datetime) -> GrantReply:
    """Raises GrantUnknown."""
    grant = await grants.find_grant(connection, agency_id, grant_id)
    if grant is None:
        raise GrantUnknown(agency_id, grant_id)
    return GrantReply.of(grant, now)
