"""What a service's database shows after a failover, without a second server."""

from typing import Any

import asyncpg


async def fail_over(admin: "asyncpg.Connection[Any]") -> None:
    """As if another server had taken over: the relay's lanes, at least that of facts, compared on an earlier one."""
    await _set(admin, "pg_postmaster_start_time() - interval '1 day'")


async def finish_comparison(admin: "asyncpg.Connection[Any]") -> None:
    """As if the relay had compared on this server, and found nothing missing."""
    await _set(admin, "pg_postmaster_start_time()")


async def _set(admin: "asyncpg.Connection[Any]", server: str) -> None:
    async with admin.transaction():
        await admin.execute("insert into topic_comparison values ('relay', now()) on conflict do nothing")
        await admin.execute(f"update topic_comparison set server_started_at = {server}")
        await admin.execute("select pg_notify('muster_wake', current_schema())")
