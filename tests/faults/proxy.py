"""A proxy in front of Postgres that falls silent, or knows just enough of its protocol to lose a COMMIT's reply."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_LENGTH = 4
_QUERY = b"Q"


class PostgresProxy:
    """Forwards connections to the server at an address. Use it as a context, on the server's own host."""

    def __init__(self, upstream_dsn: str) -> None:
        self.forward_to(upstream_dsn)
        self._server: asyncio.Server
        self._passes_on = asyncio.Event()
        self._passes_on.set()
        self._to_lose = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._passes_on.set()
        self._server.close()

    def address_of(self, dsn: str) -> str:
        """A server's address, through the proxy."""
        return at_port(dsn, self._server.sockets[0].getsockname()[1])

    def forward_to(self, upstream_dsn: str) -> None:
        """From now on, forward new connections to this server."""
        parts = urlsplit(upstream_dsn)
        self._upstream = (parts.hostname, parts.port)

    def lose_replies_to_commit(self, count: int) -> None:
        """From now on, let this many COMMITs through, and cut the connection in place of each answer."""
        self._to_lose += count

    def fall_silent(self) -> None:
        """From now on, forward nothing but keep every connection, as if a machine on the way had vanished."""
        self._passes_on.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except ConnectionError:
            writer.close()
            return
        committing = asyncio.Event()
        both = [
            asyncio.create_task(self._requests(reader, server_writer, committing)),
            asyncio.create_task(self._replies(server_reader, writer, committing)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            for end in (writer, server_writer):
                end.close()
            with suppress(ConnectionError):
                await asyncio.gather(*both, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, committing: asyncio.Event
    ) -> None:
        """Pass the client's messages on, one by one, and note a COMMIT whose answer is to be lost."""
        message = await _read(reader, type_bytes=0)  # the first one has no type
        await self._passes_on.wait()
        while message:
            if self._to_lose and message[:1] == _QUERY and message[5:].startswith(b"COMMIT"):
                self._to_lose -= 1
                committing.set()
            server.write(message)
            await server.drain()
            message = await _read(reader, type_bytes=1)
            await self._passes_on.wait()

    async def _replies(
        self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, committing: asyncio.Event
    ) -> None:
        while data := await server.read(65536):
            await self._passes_on.wait()
            if committing.is_set():
                self.lost += 1
                return
            writer.write(data)
            await writer.drain()


async def _read(reader: asyncio.StreamReader, type_bytes: int) -> bytes:
    """One message of the protocol; empty at the end of the connection."""
    try:
        head = await reader.readexactly(type_bytes + _LENGTH)
        return head + await reader.readexactly(int.from_bytes(head[type_bytes:]) - _LENGTH)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def at_port(dsn: str, port: int) -> str:
    """The same address at another port of this machine."""
    parts = urlsplit(dsn)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
