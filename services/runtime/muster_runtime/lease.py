"""A lease: one process leads in a duty. It spares the others work; correctness never rests on it."""

from muster_runtime.db import Database

LEASE_SECONDS = 5.0

# The database's own clock, so that the holders' clocks need not agree; no fact ever depends on it.
_TAKE = """
insert into lease as held (duty, holder, expires_at)
values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (duty) do update set holder = excluded.holder, expires_at = excluded.expires_at
where held.holder = excluded.holder or held.expires_at < clock_timestamp()
returning holder
"""


async def take(database: Database, duty: str, holder: str) -> bool:
    """Take or renew the lease of a duty for LEASE_SECONDS; False while another process holds it."""
    return await database.pool.fetchval(_TAKE, duty, holder, LEASE_SECONDS) is not None


async def release(database: Database, duty: str, holder: str) -> None:
    """Give the lease back, so that another process need not wait for its end."""
    await database.pool.execute("delete from lease where duty = $1 and holder = $2", duty, holder)
