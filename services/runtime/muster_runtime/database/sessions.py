"""A session of Postgres: how it begins, its settings, and what ends it if the other end has vanished."""

import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_exponential

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

# What is wrong with an address that no driver can read; its own error may quote a part of the password.
NO_ADDRESS = "not an address of Postgres: percent-encode /?#[]@:% in its user and password"

# What refuses a role: its password, its certificate, or its right to log in.
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError,)

# How long a new session of a pool goes on asking with a password that is refused: while one is rotated, the database
# or the file knows it first. It is less than a caller waits for a connection.
PASSWORD_SECONDS = 8.0

_CONFIGURE = """
select pg_postmaster_start_time() as server, set_config(name, value, false)
from unnest($1::text[], $2::text[]) as setting (name, value)
"""


class Address:
    """A database's address, which may name several servers: `host:port,host:port`. Each session reads it again.

    A role that is refused is tried again for `patience` seconds. `refusal` says why the last session was refused;
    None once one has begun.
    """

    def __init__(self, dsn: SecretStr | str, patience: float = 0) -> None:
        self._dsn = dsn if isinstance(dsn, SecretStr) else SecretStr(dsn)
        self._patience = patience
        self._first = ""  # the server that accepted the last session
        self.refusal: str | None = None

    async def connect(self, *_: Any, **options: Any) -> "asyncpg.Connection[Any]":
        """Begin a session with the first server that accepts it; a pool passes its own address, too."""
        return await AsyncRetrying(
            retry=retry_if_exception_type(REFUSED),
            stop=stop_before_delay(self._patience),
            wait=wait_exponential(multiplier=0.1, max=1),
            reraise=True,
        )(self._connect, options)

    async def _connect(self, options: dict[str, Any]) -> "asyncpg.Connection[Any]":
        """Try each server. The driver does too, but one that does not answer would use up the time of all."""
        dsn = self._dsn.get_secret_value()
        parts = urlsplit(dsn)
        credentials, at, hosts = parts.netloc.rpartition("@")
        servers = sorted(hosts.split(","), key=lambda host: host != self._first)
        if len(servers) > 1:
            options = {**options, "timeout": CONNECT_SECONDS}
        failure: Exception
        for host in servers:
            server = urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}")) if len(servers) > 1 else dsn
            try:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(server, **options)
            except REFUSED as error:
                self.refusal = _refusal(parts, error)
                raise
            except _NEXT as error:
                if isinstance(error, ssl.SSLError):
                    self.refusal = _refusal(parts, error)
                failure = error
                continue
            self._first, self.refusal = host, None
            return connection
        raise failure


def _refusal(address: SplitResult, error: Exception) -> str:
    """Why no session began, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of Postgres is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"Postgres refuses the certificate or the protocol of this process: {error.reason}"
    what = "the password of " if isinstance(error, asyncpg.InvalidPasswordError) else ""
    return f"Postgres refuses {what}{address.username}: {str(error).partition(chr(10))[0]}"


def keep_alive(connection: "asyncpg.Connection[Any]") -> None:
    """Close a connection within half a minute if its server disappears without closing it."""
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
