"""Notes on which server each lane of the relay has compared its topics with the database, and found nothing missing.

Until every lane has, on the server that answers now, commits may be lost. So deadlines wait, and a hold cannot be
released (`scheduling.hold`). A release that drops a lane deletes its row in a migration.
"""

from datetime import datetime

from muster_runtime.database import repeatable
from muster_runtime.database.transactions import Database, UnitOfWork

# Only on the server that was compared. Wakes the duties that wait for it.
_NOTE = """
with noted as (
    insert into topic_comparison as known (lane, server_started_at)
    select $1, $2
    where pg_postmaster_start_time() = $2
    on conflict (lane) do update set server_started_at = excluded.server_started_at
    where known.server_started_at <> excluded.server_started_at
    returning lane
)
select pg_notify('muster_wake', current_schema()) from noted
"""

# The timestamp 'epoch', which is 1970, names no server.
_FORGET = """
insert into topic_comparison as known (lane, server_started_at)
values ($1, 'epoch')
on conflict (lane) do update set server_started_at = excluded.server_started_at
where known.server_started_at <> excluded.server_started_at
"""

_IS_NOTED = """
select
from topic_comparison
where
    lane = $1
    and server_started_at = $2
    and not exists (select from topic_comparison where server_started_at = 'epoch')
"""


async def note(database: Database, lane: str, server_started_at: datetime) -> None:
    """Note that a lane has compared all its topics, and that they show no lost commits."""
    await repeatable.fetch(database, _NOTE, lane, server_started_at)


async def forget(database: Database, lane: str) -> None:
    """Note that a lane must compare its topics again: it has found that commits are lost."""
    await repeatable.fetch(database, _FORGET, lane)


async def forget_all(uow: UnitOfWork) -> None:
    """Note that every lane must compare its topics again: the database was restored."""
    await uow.connection.execute("update topic_comparison set server_started_at = 'epoch'")


async def is_noted(database: Database, lane: str, server_started_at: datetime) -> bool:
    """Whether a lane is noted as compared on this server, and no lane must compare again."""
    return bool(await repeatable.fetch(database, _IS_NOTED, lane, server_started_at))
