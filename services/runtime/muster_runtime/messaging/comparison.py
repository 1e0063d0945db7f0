"""Notes on which server each lane of the relay has compared its topics with the database.

Until every lane has, on the server that answers now, commits may be lost that nobody has missed yet. So deadlines wait
(`scheduling.hold`).
"""

from datetime import datetime

from muster_runtime.database import repeatable
from muster_runtime.database.transactions import Database

# Wakes the duties that wait for it.
_NOTE = """
with noted as (
    insert into topic_comparison as known (lane, server_started_at)
    values ($1, $2)
    on conflict (lane) do update set server_started_at = excluded.server_started_at
    where known.server_started_at <> excluded.server_started_at
    returning lane
)
select pg_notify('muster_wake', current_schema()) from noted
"""


async def note(database: Database, lane: str, server_started_at: datetime) -> None:
    """Note that a lane has compared all its topics, and that they show no lost commits."""
    await repeatable.fetch(database, _NOTE, lane, server_started_at)
