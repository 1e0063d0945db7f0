"""A receiver of webhooks: a real HTTP server with chosen answers, which keeps what it received."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def verified(self, secret: str) -> dict[str, Any]:
        """The event, checked as a receiver would; raises WebhookVerificationError."""
        event: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return event


@dataclass
class Receiver:
    """`answer` gives the status for each request, after `delay`; None leaves it without an answer.

    Each answer sets a cookie. `interim` is sent before an answer; a `flood` never ends.
    """

    port: int = 0
    answer: Callable[[Request], int | None] = lambda _: 204
    delay: Callable[[Request], Awaitable[None]] | None = None
    interim: bytes = b""
    flood: bool = False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def sequences(self, agency_id: str) -> list[int]:
        """The sequences of an agency's events, in the order of arrival."""
        return [request.event["sequence"] for request in self.requests if request.event["agency_id"] == agency_id]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            request = await _read(reader)
            self.requests.append(request)
            if self.delay:
                await self.delay(request)
            writer.write(self.interim)
            while self.flood:
                writer.write(self.interim)
                await writer.drain()
            status = self.answer(request)
            if status is None:
                await reader.read()  # until the sender hangs up
            else:
                location = "location: /elsewhere\r\n" if 300 <= status < 400 else ""
                head = f"HTTP/1.1 {status} X\r\nset-cookie: session={len(self.requests)}\r\n{location}"
                writer.write(f"{head}content-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender is gone
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(head[0].split()[1], headers, body)


@asynccontextmanager
async def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serve on the receiver's port (0: a free one) until the block ends."""
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
