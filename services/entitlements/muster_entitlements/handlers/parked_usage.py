"""The operators' commands on usage records that could not be counted."""

from muster_entitlements.commands import DiscardParkedUsage
from muster_entitlements.domain.usage import MOST_PARKED
from muster_entitlements.replies.usage import DiscardedUsageReply
from muster_entitlements.repository import usage_intake
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, UnitOfWork
from muster_runtime.observability import audit


async def discard_parked_usage(uow: UnitOfWork, command: DiscardParkedUsage) -> DiscardedUsageReply:
    """Discard records permanently; records that no longer exist change nothing."""
    discarded = await usage_intake.delete_parked(uow.connection, command.ids)
    audit.record(
        uow,
        command="DiscardParkedUsage",
        agency_id=EVERY_AGENCY,
        before={"records": discarded},
        reason=command.reason,
    )
    return DiscardedUsageReply(discarded=len(discarded))


async def is_full(connection: Connection) -> bool:
    """Whether the limit of parked records is reached."""
    return await usage_intake.count_parked(connection, MOST_PARKED) == MOST_PARKED


async def warnings(connection: Connection) -> list[str]:
    """A warning if parked records wait for an operator."""
    parked = await usage_intake.count_parked(connection, MOST_PARKED)
    if not parked:
        return []
    records = "record" if parked == 1 else "records"
    told = f"{parked:,} usage {records} could not be counted: see GET /v1/usage/parked"
    return [
        f"{told}; no more are parked, and the intake waits until some are discarded" if parked == MOST_PARKED else told
    ]
