"""Limits the HTTP server's connections: how many, from where, and how long each may take to send a request.

uvicorn limits a request once its head is complete. This module applies limits before that: the bytes and the time of a
head, the number of connections in total and per address, and what follows a request that is already answered. It also
limits the framing of a body, such as chunk sizes and trailers, because the parser buffers that too.
"""

import asyncio
import resource
import time
from collections import Counter
from http import HTTPStatus
from itertools import takewhile
from typing import Any

import structlog
from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muster_runtime.observability.telemetry import HTTP_CONNECTIONS, HTTP_CONNECTIONS_CLOSED

# How long a head may take, from the start of its connection or from the previous response.
HEAD_SECONDS = 10.0

# How often to look for connections that have timed out.
_SWEEP_SECONDS = 1.0

# How long an idle connection is kept after a response. A proxy in front must close its own sooner.
KEEP_ALIVE_SECONDS = 5

# How long open requests may take once the process stops.
DRAIN_SECONDS = 7

# The maximum bytes of an incomplete head, and of what comes between two pieces of a body or after the last one: chunk
# sizes, extensions, trailers. A complete head is checked against stricter limits, and the response names the limit.
HEAD_BYTES = 64 * 1024

# The maximum number of pipelined requests on a connection.
PIPELINED_REQUESTS = 8

# File descriptors that the process needs besides its clients' connections: pools, Kafka, files.
RESERVED_DESCRIPTORS = 128

# Log at most one line in this many seconds; the metric counts every connection.
_LOG_SECONDS = 1.0

log = structlog.get_logger(__name__)


def raise_file_limit() -> int:
    """Raise this process's limit of open files to the maximum, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Connections:
    """All connections of the server. At a limit, the connection that has waited longest makes room.

    A connection waits while its client has not sent the next head, or does not read the response. A connection with a
    request in progress is never closed.
    """

    def __init__(self, service: str, limit: int, per_address: int, *, open_files: int) -> None:
        self._service = service
        self._limit = max(1, min(limit, open_files - RESERVED_DESCRIPTORS))
        self._per_address = per_address
        self._open: Counter[str] = Counter()
        self._total = 0
        # When each connection started to wait, longest first: all connections, and those of each address.
        self._waiting: dict[BoundedProtocol, float] = {}
        self._waiting_of: dict[str, dict[BoundedProtocol, float]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._logged_at: dict[str, float] = {}

    def admit(self, connection: "BoundedProtocol") -> bool:
        """Count a new connection; False if there is no room for it."""
        address = connection.address
        if self._open[address] >= self._per_address:
            reason, room = "address", self._evict(self._waiting_of.get(address), "address")
        else:
            reason, room = "total", self._total < self._limit or self._evict(self._waiting, "total")
        if not room:
            self.note_closed(reason, address)
            return False
        self._open[address] += 1
        self._total += 1
        HTTP_CONNECTIONS.labels(self._service).set(self._total)
        return True

    def wait(self, connection: "BoundedProtocol") -> None:
        """Note that the server now waits for the client's next head."""
        self.work(connection)
        now = time.monotonic()
        self._waiting[connection] = now
        self._waiting_of.setdefault(connection.address, {})[connection] = now
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(_SWEEP_SECONDS, self._sweep, connection.loop)

    def work(self, connection: "BoundedProtocol") -> None:
        """Note that a request of the connection is in progress."""
        self._waiting.pop(connection, None)
        waiting = self._waiting_of.get(connection.address)
        if waiting is not None:
            waiting.pop(connection, None)
            if not waiting:
                del self._waiting_of[connection.address]

    def remove(self, connection: "BoundedProtocol") -> None:
        """Forget a closed connection."""
        self.work(connection)
        self._total -= 1
        self._open[connection.address] -= 1
        if not self._open[connection.address]:
            del self._open[connection.address]
        HTTP_CONNECTIONS.labels(self._service).set(self._total)

    def note_closed(self, reason: str, address: str) -> None:
        """Count a connection that is closed because of a limit, and log it at most once per _LOG_SECONDS."""
        HTTP_CONNECTIONS_CLOSED.labels(self._service, reason).inc()
        now = time.monotonic()
        if now >= self._logged_at.get(reason, 0.0) + _LOG_SECONDS:
            self._logged_at[reason] = now
            log.warning("connection_closed", reason=reason, address=address, connections=self._total)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections that have waited too long."""
        self._sweeping = None
        over = time.monotonic() - HEAD_SECONDS
        for connection in list(takewhile(lambda waiting: self._waiting[waiting] <= over, self._waiting)):
            connection.expire()
        if self._waiting:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def _evict(self, waiting: "dict[BoundedProtocol, float] | None", reason: str) -> bool:
        if not waiting:
            return False
        # A connection whose response is still being sent is evicted only as a last resort.
        oldest = next((connection for connection in waiting if not connection.unsent), next(iter(waiting)))
        self.note_closed(reason, oldest.address)
        oldest.evict()
        return True


class BoundedProtocol(HttpToolsProtocol):
    """One connection and its limits."""

    # Slots, in addition to the dictionary of uvicorn's attributes: with more than thirty entries, that would be three
    # times as large.
    __slots__ = ("_admitted", "_connections", "_head_bytes", "_in_head", "_unsent", "address")

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._admitted = False
        self._head_bytes = 0
        self._in_head = True  # otherwise in a body
        self._unsent = 0  # when the wait started
        self.address = ""

    @property
    def unsent(self) -> int:
        """Bytes of responses that the client has not received yet."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or close it at once."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._admitted = self._connections.admit(self)
        if not self._admitted:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        if self._admitted:
            self._admitted = False
            self._connections.remove(self)

    def data_received(self, data: bytes) -> None:
        """Parse the data, as long as it stays within the limits."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head-size")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header. Trailers after a chunked body are dropped, because nobody reads them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request: its head is complete.

        If the head offers to upgrade, the parser treats what follows as another protocol: a body would be lost, or be
        read as a request of its own. Raises HttpParserError, which is answered with 400, if such a head announces a
        body.
        """
        if (offer := self.parser.should_upgrade()) and any(_announces_body(*header) for header in self.headers):
            self._connections.note_closed("upgrade", self.address)
            raise HttpParserError("a body behind an offer to upgrade")
        self._in_head = False
        self._head_bytes = 0
        if len(self.pipeline) >= PIPELINED_REQUESTS:
            self._connections.note_closed("pipelining", self.address)
            self.transport.abort()
            return
        if not self.flow.write_paused:  # otherwise it waits: another head buys no time to read a response
            self._connections.work(self)
        super().on_headers_complete()
        if offer:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Receive a piece of the body; the route limits its size."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect another head: the body is complete."""
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next head, or first for the rest of a body that nobody reads: the response is sent."""
        super().on_response_complete()
        if self.cycle.response_complete and (self.unsent or not self.transport.is_closing()):
            self._wait()

    def pause_writing(self) -> None:
        """Start the time limit: the client does not read."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """End the time limit: the client reads again."""
        super().resume_writing()
        if self._admitted and self.cycle is not None and not self.cycle.response_complete:
            self._connections.work(self)

    def evict(self) -> None:
        """Close at once, to make room for another connection."""
        self._connections.work(self)
        self.transport.abort()

    def expire(self) -> None:
        """Close if the client has not sent its next head or received any more of a response in time."""
        self._connections.work(self)
        if 0 < self.unsent < self._unsent:
            self._wait()
        elif self.unsent:
            self._connections.note_closed("unread", self.address)
            self.transport.abort()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "head-time")

    def _wait(self) -> None:
        if self._admitted:
            self._unsent = self.unsent
            self._connections.wait(self)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Send a response without a body if one is still due, and close."""
        self._connections.note_closed(reason, self.address)
        if self.cycle is None or self.cycle.response_complete:
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
