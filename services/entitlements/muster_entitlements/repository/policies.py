"""What agencies have laid down for their seats."""

from muster_entitlements.domain import DEFAULT_POLICY, SeatPolicy
from muster_runtime.db import Connection


async def find_policy(connection: Connection, agency_id: str) -> tuple[SeatPolicy, int]:
    """An agency's policy and its version; the default in version 0 where it has laid down none."""
    row = await connection.fetchrow(
        "select idle_days, warning_days, invitation_days, version from seat_policy where agency_id = $1", agency_id
    )
    if row is None:
        return DEFAULT_POLICY, 0
    return SeatPolicy(row["idle_days"], row["warning_days"], row["invitation_days"]), row["version"]


async def put_policy(connection: Connection, agency_id: str, policy: SeatPolicy, version: int) -> None:
    """Lay a policy down."""
    await connection.execute(
        """
        insert into seat_policy (agency_id, idle_days, warning_days, invitation_days, version)
        values ($1, $2, $3, $4, $5)
        on conflict (agency_id) do update set
            idle_days = excluded.idle_days,
            warning_days = excluded.warning_days,
            invitation_days = excluded.invitation_days,
            version = excluded.version
        """,
        agency_id,
        policy.idle_days,
        policy.warning_days,
        policy.invitation_days,
        version,
    )
