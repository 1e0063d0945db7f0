"""A proxy in front of Postgres that records round trips per connection: what it sends before each wait for a reply."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

# Message types of Postgres' protocol, version 3. Sync and Flush end a round trip that Parse or Bind began.
_QUERY, _PARSE, _BIND, _SYNC, _FLUSH = b"Q", b"P", b"B", b"S", b"H"

_SSL_REQUEST = 80877103


@dataclass
class Session:
    """A connection: its role, and its round trips, each by its SQL."""

    user: str = ""
    trips: list[str] = field(default_factory=list)
    _statements: dict[bytes, str] = field(default_factory=dict)
    _asked: str = ""

    def note(self, message: bytes) -> None:
        """Record one message from the client."""
        kind, body = message[:1], message[5:]
        if kind == _PARSE:
            name, text = body.split(b"\0")[:2]
            self._statements[name] = _shown(text)
            self._asked = f"prepare {_shown(text)}"
        elif kind == _BIND:
            self._asked = self._statements.get(body.split(b"\0")[1], "")
        elif kind == _QUERY:
            self.trips.append(_shown(body.rstrip(b"\0")))
        elif kind in (_SYNC, _FLUSH):
            self.trips.append(self._asked)

    def transaction(self, words: str) -> list[str]:
        """The round trips of the last transaction with a statement that contains `words`, from BEGIN to COMMIT."""
        found: list[str] = []
        begun = 0
        for place, trip in enumerate(self.trips):
            if trip.startswith("BEGIN"):
                begun = place
            elif trip.startswith("COMMIT") and any(words in sql for sql in self.trips[begun:place]):
                found = self.trips[begun : place + 1]
        return found


class RoundTrips:
    """Forwards connections to the server of a DSN. An async context manager."""

    def __init__(self, upstream_dsn: str) -> None:
        self._upstream = urlsplit(upstream_dsn)
        self._server: asyncio.Server
        self.sessions: list[Session] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def address(self) -> str:
        """The server's DSN, through the proxy."""
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._upstream.netloc.rpartition("@")[0]
        return urlunsplit(self._upstream._replace(netloc=f"{credentials}@127.0.0.1:{port}"))

    def of(self, user: str) -> list[str]:
        """Every round trip of a role, connection by connection."""
        return [trip for session in self.sessions if session.user == user for trip in session.trips]

    def transaction(self, words: str) -> list[str]:
        """The round trips of the last transaction with a statement that contains `words`."""
        return next(filter(None, (session.transaction(words) for session in reversed(self.sessions))), [])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        both = [
            asyncio.create_task(self._requests(reader, server_writer)),
            asyncio.create_task(_pass_on(server_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            for end in (writer, server_writer):
                end.close()
            await asyncio.gather(*both, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        session = Session()
        self.sessions.append(session)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not session.user:  # the first messages have no type
                message = await _message(reader, b"")
                if int.from_bytes(message[4:8]) != _SSL_REQUEST:
                    names = message[8:].split(b"\0")
                    session.user = dict(zip(names[::2], names[1::2], strict=False))[b"user"].decode()
                server.write(message)
            while True:
                message = await _message(reader, await reader.readexactly(1))
                session.note(message)
                server.write(message)
                await server.drain()


async def _message(reader: asyncio.StreamReader, kind: bytes) -> bytes:
    length = await reader.readexactly(4)
    return kind + length + await reader.readexactly(int.from_bytes(length) - 4)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def _shown(sql: bytes) -> str:
    return " ".join(sql.decode().split())
