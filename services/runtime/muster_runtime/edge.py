"""What every request passes first: ids, the token, the body's size, the measure of it, and the answer to any error."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muster_runtime import problems
from muster_runtime.auth import PUBLIC_PATHS, TokenVerifier
from muster_runtime.context import Context
from muster_runtime.errors import TooManyRequests
from muster_runtime.telemetry import HTTP_IN_WORK, HTTP_REQUEST_SECONDS

MEBIBYTE = 1024 * 1024

DEFAULT_BODY_LIMIT = 2 * MEBIBYTE

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_BYTES = 8 * 1024

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# A method of the caller's own invention must not make a metric of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

E = TypeVar("E", bound=Callable[..., Any])

log = structlog.get_logger(__name__)


def body_limit(size: int) -> Callable[[E], E]:
    """Let a route take a body of up to `size` bytes. Put it between the route's decorator and the function."""

    def mark(endpoint: E) -> E:
        endpoint.body_limit = size  # type: ignore[attr-defined]
        return endpoint

    return mark


class Edge:
    """The outermost layer (ASGI): nothing goes in without a token but to the public paths, nothing leaks out."""

    def __init__(self, app: ASGIApp, service: str, verifier: TokenVerifier, concurrency: int) -> None:
        self._app = app
        self._service = service
        self._verifier = verifier
        self._concurrency = concurrency
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(Request(scope, receive), send)
        started_at = time.perf_counter()
        with structlog.contextvars.bound_contextvars(
            request_id=exchange.request_id, correlation_id=exchange.correlation_id
        ):
            try:
                if exchange.path in PUBLIC_PATHS:
                    await self._app(scope, exchange.receive, exchange.send)
                else:
                    await self._serve(exchange)
            except Exception as error:
                if exchange.status is not None:
                    raise
                response = await problems.answer(exchange.request, error)
                await response(scope, receive, exchange.send)
            finally:
                self._measure(exchange, time.perf_counter() - started_at)

    async def _serve(self, exchange: "_Exchange") -> None:
        """Serve a request that needs a token, as one of no more than so many at once."""
        if self._in_work >= self._concurrency:
            raise TooManyRequests(f"{self._concurrency} requests are in work; send it again a moment later")
        self._in_work += 1
        HTTP_IN_WORK.labels(self._service).set(self._in_work)
        try:
            # All that came at once is counted before any of it costs more: a flood is refused cheaply.
            await asyncio.sleep(0)
            await self._admit(exchange)
            await self._app(exchange.request.scope, exchange.receive, exchange.send)
        finally:
            self._in_work -= 1
            HTTP_IN_WORK.labels(self._service).set(self._in_work)

    async def _admit(self, exchange: "_Exchange") -> None:
        request = exchange.request
        self._measure_head(request.scope)
        if "\0" in exchange.path or b"%00" in request.scope["query_string"]:
            raise HTTPException(400, "the address holds the character U+0000")
        identity = await self._verifier.verify(request.headers.get("authorization"))
        request.state.identity = identity
        request.state.context = Context(
            actor=identity.actor,
            correlation_id=exchange.correlation_id,
            traceparent=_valid(_TRACEPARENT, request.headers.get("traceparent")),
            request_id=exchange.request_id,
        )

    def _measure_head(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers) > MAX_HEADER_BYTES:
            raise HTTPException(
                431, f"a request has at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them"
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise HTTPException(414, f"an address has at most {MAX_TARGET_BYTES} bytes")

    def _measure(self, exchange: "_Exchange", seconds: float) -> None:
        method = exchange.request.method if exchange.request.method in _METHODS else "other"
        route = exchange.route
        status = exchange.status or 500
        HTTP_REQUEST_SECONDS.labels(self._service, method, route, status).observe(seconds)
        if exchange.path not in PUBLIC_PATHS:
            log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 2))


class _Exchange:
    """One request and what is known of its answer."""

    def __init__(self, request: Request, send: Send) -> None:
        self.request = request
        # As it is routed: `request.url` is made of the Host header too, which is the caller's to invent.
        self.path: str = request.scope["path"]
        self.status: int | None = None
        self.request_id = _valid(_ID, request.headers.get("x-request-id")) or uuid.uuid4().hex
        self.correlation_id = _valid(_ID, request.headers.get("x-correlation-id")) or self.request_id
        request.state.request_id = self.request_id
        self._send = send
        self._received = 0

    @property
    def route(self) -> str:
        """The route's template, so that the metrics do not grow with the ids in paths."""
        route = self.request.scope.get("fastapi", {}).get("effective_route_context") or self.request.scope.get("route")
        return getattr(route, "path", "unmatched")

    async def receive(self) -> Message:
        """Receive a part of the body, within the route's limit."""
        limit = getattr(self.request.scope.get("endpoint"), "body_limit", DEFAULT_BODY_LIMIT)
        message = await self.request.receive()
        self._received += len(message.get("body", b""))
        if self._received > limit:
            raise HTTPException(413, f"the body is larger than {limit} bytes")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the request's ids in its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                (b"x-correlation-id", self.correlation_id.encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)


def _valid(pattern: re.Pattern[str], value: str | None) -> str | None:
    return value if value is not None and pattern.fullmatch(value) else None
