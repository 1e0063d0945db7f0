"""The seat policies of agencies, and the progress of the search for idle seats."""

from muster_entitlements.domain.seats import DEFAULT_POLICY, SeatPolicy
from muster_runtime.database.transactions import Connection


async def find_policy(connection: Connection, agency_id: str) -> tuple[SeatPolicy, int]:
    """An agency's policy and its version; the default in version 0 if it has set none."""
    row = await connection.fetchrow(
        "select idle_days, warning_days, invitation_days, version from seat_policy where agency_id = $1", agency_id
    )
    if row is None:
        return DEFAULT_POLICY, 0
    return SeatPolicy(row["idle_days"], row["warning_days"], row["invitation_days"]), row["version"]


async def save_policy(connection: Connection, agency_id: str, policy: SeatPolicy, version: int) -> bool:
    """Set a policy and restart the search; returns whether warnings under an earlier policy must be deleted."""
    forgetting: bool = await connection.fetchval(
        """
        insert into seat_policy as p (agency_id, idle_days, warning_days, invitation_days, version)
        values ($1, $2, $3, $4, $5)
        on conflict (agency_id) do update set
            idle_days = excluded.idle_days,
            warning_days = excluded.warning_days,
            invitation_days = excluded.invitation_days,
            version = excluded.version,
            swept_seat_id = '',
            forgetting = p.forgetting or (p.idle_days is not null and excluded.idle_days is null)
        returning forgetting
        """,
        agency_id,
        policy.idle_days,
        policy.warning_days,
        policy.invitation_days,
        version,
    )
    return forgetting


async def find_sweep(connection: Connection, agency_id: str) -> tuple[str, bool]:
    """The last seat that the current search has reached, and whether it deletes warnings."""
    row = await connection.fetchrow("select swept_seat_id, forgetting from seat_policy where agency_id = $1", agency_id)
    return (row["swept_seat_id"], row["forgetting"]) if row else ("", False)


async def save_sweep(connection: Connection, agency_id: str, seat_id: str | None) -> None:
    """Store the last seat that the search has reached; None if the search is complete."""
    await connection.execute(
        """
        update seat_policy set swept_seat_id = coalesce($2, ''), forgetting = forgetting and $2::text is not null
        where agency_id = $1
        """,
        agency_id,
        seat_id,
    )
