"""The replies to consumption requests, by Idempotency-Key: kept for at least a day, and dropped by day."""

from dataclasses import dataclass
from datetime import date, timedelta

from muster_runtime.database.connections import Connection
from muster_runtime.database.writes import Write


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply, and the digest of the request that it answers."""

    request: bytes
    reply: bytes


async def find_reply(connection: Connection, agency_id: str, key: str, today: date) -> KeptReply | None:
    """The reply that was kept under a key today or yesterday."""
    row = await connection.fetchrow(
        """
        select request, reply
        from usage_reply
        where agency_id = $1 and key = $2 and day >= $3
        order by day desc
        limit 1
        """,
        agency_id,
        key,
        today - timedelta(days=1),
    )
    return KeptReply(**row) if row else None


def add_reply(agency_id: str, key: str, today: date, kept: KeptReply) -> Write:
    """Keep a reply under a key."""
    return (
        """
        kept_usage_reply as (
            insert into usage_reply (agency_id, key, day, request, reply) values ($1, $2, $3, $4, $5)
        )
        """,
        [agency_id, key, today, kept.request, kept.reply],
    )
