"""Limits how much is read from a webhook's receiver, whose owner decides how much it sends."""

import ssl
from typing import Any

import httpcore

# A receiver may send endless interim responses (1xx) and headers, and each costs the event loop time.
LONGEST_HEAD = 16 * 1024  # bytes; the limit of Node's client


class BoundedNetwork(httpcore.AnyIOBackend):
    """Connections that read at most `LONGEST_HEAD` bytes: a response must have begun its body by then."""

    async def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(await super().connect_tcp(*arguments, **options))


class _BoundedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = LONGEST_HEAD

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._left:
            raise httpcore.RemoteProtocolError("the head of the answer is too long")
        data = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
