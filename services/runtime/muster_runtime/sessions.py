"""A session of Postgres: its settings, and what ends it if the server has vanished without a word."""

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

# Seconds of silence until the server is asked whether it lives, between askings, and how often; and how many
# milliseconds it may leave what was sent unacknowledged.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 30_000,
}

_CONFIGURE = """
select pg_postmaster_start_time() as server, set_config(name, value, false)
from unnest($1::text[], $2::text[]) as setting (name, value)
"""


def keep_alive(connection: "asyncpg.Connection[Any]") -> None:
    """Let a connection whose server has vanished without a word end within half a minute."""
    socket_ = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        socket_.setsockopt(socket.IPPROTO_TCP, option, value)


async def configure(connection: "asyncpg.Connection[Any]", settings: Mapping[str, str]) -> datetime:
    """Set a session, and return when its server was started.

    PgBouncer rejects a client that sends such settings when it connects.
    """
    rows = await connection.fetch(_CONFIGURE, list(settings), list(settings.values()))
    started: datetime = rows[0]["server"]
    return started
