"""A session of Postgres: how it begins, its settings, and what ends it if the other end has vanished."""

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

# How long one server of several may take until a session with it has begun.
CONNECT_SECONDS = 3.0

# Why another server of several is tried: this one does not answer, does not lead, or does not accept sessions yet.
_NEXT = (OSError, TimeoutError, asyncpg.TargetServerAttributeNotMatched, asyncpg.CannotConnectNowError)

# Seconds of silence until the server is asked whether it lives, between askings, and how often; and how many
# milliseconds it may leave what was sent unacknowledged.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 30_000,
}

# What the server does about a client that has vanished, whose session may hold an agency's lock: the same, it looks
# while it works whether the connection is closed, and it ends a transaction that has no next statement.
VANISHED_CLIENTS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "client_connection_check_interval": "5000",
    "idle_in_transaction_session_timeout": "25000",
}

_CONFIGURE = """
select pg_postmaster_start_time() as server, set_config(name, value, false)
from unnest($1::text[], $2::text[]) as setting (name, value)
"""


class Address:
    """A database's address, which may name several servers: `host:port,host:port`."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        credentials, at, hosts = parts.netloc.rpartition("@")
        each = [urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}")) for host in hosts.split(",")]
        self._servers = each if len(each) > 1 else [dsn]

    async def connect(self, *_: Any, **options: Any) -> "asyncpg.Connection[Any]":
        """Begin a session with the first server that accepts it; a pool passes its own address, too.

        The driver tries several in turn as well, but lets one that does not answer use up the time of all.
        """
        if len(self._servers) > 1:
            options["timeout"] = CONNECT_SECONDS
        failure: Exception
        for server in list(self._servers):
            try:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(server, **options)
            except _NEXT as error:
                failure = error
                continue
            self._servers.remove(server)
            self._servers.insert(0, server)  # it is tried first the next time
            return connection
        raise failure


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
