"""A proxy that puts a server far away: each message arrives late, and now and then a connection is reset."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Distance:
    """Passes connections on to a port of this machine. Use it as a context.

    `seconds` is how long a round trip takes; `resets` is the chance that a request resets its connection instead.
    """

    def __init__(self, upstream_port: int, dice: random.Random) -> None:
        self.seconds = 0.0
        self.resets = 0.0
        self.was_reset = 0
        self._upstream_port = upstream_port
        self._dice = dice
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def address_of(self, dsn: str) -> str:
        """A server's address, through the proxy."""
        parts = urlsplit(dsn)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{self.port}"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.seconds)  # the handshake's own round trip
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except ConnectionError:
            writer.transport.abort()
            return
        ends = (writer, server_writer)
        both = [
            asyncio.create_task(self._pass_on(reader, server_writer, lambda: self._dice.random() < self.resets)),
            asyncio.create_task(self._pass_on(server_reader, writer, lambda: False)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            for end in ends:
                end.transport.abort()
            await asyncio.gather(*both, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_reset: Callable[[], bool]
    ) -> None:
        """Pass on what arrives, in order, half a round trip later; data in transit does not delay what follows it."""
        loop = asyncio.get_running_loop()
        arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await arrivals.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    if is_reset():
                        self.was_reset += 1
                        return
                    arrivals.put_nowait((loop.time() + self.seconds / 2, data))
                arrivals.put_nowait((loop.time() + self.seconds / 2, b""))
                await delivering
        finally:
            delivering.cancel()
