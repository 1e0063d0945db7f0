"""A Postgres session: how it starts, its settings, and what ends it if the other end disappears."""

import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_exponential

# If there are several servers, how long one may take to start a session.
CONNECT_SECONDS = 3.0

# Errors after which the next server is tried: this one does not respond, closes the connection, is not the primary, or
# is not accepting sessions yet.
_NEXT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.CannotConnectNowError,
)

# Seconds of silence before the first keepalive probe, seconds between probes, and the number of probes; then the
# milliseconds for which sent data may stay unacknowledged.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 30_000,
}

# How the server handles a client that has disappeared, whose session may hold an agency's lock: it uses the same
# keepalives, checks during a statement whether the connection is closed, and ends a transaction without a next
# statement.
VANISHED_CLIENTS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "client_connection_check_interval": "5000",
    "idle_in_transaction_session_timeout": "25000",
}

# The message for an address that no driver can parse: the driver's own error may quote part of the password.
NO_ADDRESS = "not a valid Postgres DSN: percent-encode /?#[]@:% in its user and password"

# A role is refused because of its password, its certificate, or its right to log in.
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError,)

# How long a pool keeps trying to start a session with a refused password: during a rotation, the database or the file
# gets the new one first. It is less than callers wait for a connection.
PASSWORD_SECONDS = 8.0

_CONFIGURE = """
select pg_postmaster_start_time() as server, set_config(name, value, false)
from unnest($1::text[], $2::text[]) as setting (name, value)
"""


class Address:
    """A database's address, which may name several servers: `host:port,host:port`. Each new session reads it again.

    If a role is refused, it is retried for `patience` seconds. `refusal` says why the last session was refused; None
    after a session has started, on `server`.
    """

    def __init__(self, dsn: SecretStr | str, patience: float = 0) -> None:
        self._dsn = dsn if isinstance(dsn, SecretStr) else SecretStr(dsn)
        self._patience = patience
        self.server = ""
        self.refusal: str | None = None

    async def connect(self, *_: Any, **options: Any) -> "asyncpg.Connection[Any]":
        """Start a session on the first server that accepts it. A pool passes its own address too, which is ignored."""
        return await AsyncRetrying(
            retry=retry_if_exception_type(REFUSED),
            stop=stop_before_delay(self._patience),
            wait=wait_exponential(multiplier=0.1, max=1),
            reraise=True,
        )(self._connect, options)

    async def _connect(self, options: dict[str, Any]) -> "asyncpg.Connection[Any]":
        """Try each server. The driver would too, but a server that does not respond would use up the time of all."""
        dsn = self._dsn.get_secret_value()
        parts = urlsplit(dsn)
        credentials, at, hosts = parts.netloc.rpartition("@")
        servers = sorted(hosts.split(","), key=lambda host: host != self.server)
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
            self.server, self.refusal = host, None
            return connection
        raise failure


def _refusal(address: SplitResult, error: Exception) -> str:
    """A human-readable reason why no session was started."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of Postgres is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"Postgres refuses the certificate or the protocol of this process: {error.reason}"
    what = "the password of " if isinstance(error, asyncpg.InvalidPasswordError) else ""
    return f"Postgres refuses {what}{address.username}: {str(error).partition(chr(10))[0]}"


def keep_alive(connection: "asyncpg.Connection[Any]") -> None:
    """Make a connection close within half a minute if its server disappears without closing it."""
    socket_ = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        socket_.setsockopt(socket.IPPROTO_TCP, option, value)


async def configure(connection: "asyncpg.Connection[Any]", settings: Mapping[str, str]) -> datetime:
    """Apply settings to a session, and return when its server was started.

    PgBouncer rejects a client that sends such settings when it connects.
    """
    rows = await connection.fetch(_CONFIGURE, list(settings), list(settings.values()))
    started: datetime = rows[0]["server"]
    return started
