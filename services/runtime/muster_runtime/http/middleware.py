"""What every request passes first: ids, the token, its tenant's share of the process, and the answer to any error."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muster_runtime.context import Context
from muster_runtime.errors import TooManyRequests
from muster_runtime.http import problems
from muster_runtime.http.auth import PUBLIC_PATHS
from muster_runtime.http.identity import Identity
from muster_runtime.http.json_shape import MAX_KEYS, broken_rule
from muster_runtime.http.request_span import request_span
from muster_runtime.http.slots import Slots
from muster_runtime.http.tokens import REASON_HEADER, TokenVerifier
from muster_runtime.observability import tracing
from muster_runtime.observability.telemetry import BREAK_GLASS, HTTP_IN_WORK, HTTP_REFUSED, HTTP_REQUEST_SECONDS
from muster_runtime.spans import Span

MEBIBYTE = 1024 * 1024

DEFAULT_BODY_LIMIT = 2 * MEBIBYTE

# Time that a body may keep its route waiting: so many seconds, and one more for so many bytes that have come.
BODY_SECONDS = 10.0
BODY_BYTES_PER_SECOND = 16 * 1024

# For so long after a refusal the process says that it is full.
SATURATED_SECONDS = 10.0

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_BYTES = 8 * 1024

# Of a second one a proxy may look at the last, and a service at the first.
_GIVEN_ONCE = (b"authorization", b"content-type", b"idempotency-key", b"if-match", REASON_HEADER.lower().encode())

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# A method of the caller's own invention must not make a metric of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

E = TypeVar("E", bound=Callable[..., Any])

log = structlog.get_logger(__name__)


def body_limit(size: int, *, keys: int = MAX_KEYS, streamed: bool = False) -> Callable[[E], E]:
    """Let a route take a body of up to `size` bytes. Put it between the route's decorator and the function.

    JSON has at most so many `keys`. A `streamed` body is never in memory as a whole, and does not count as such.
    """

    def mark(endpoint: E) -> E:
        endpoint.body_limit = size  # type: ignore[attr-defined]
        endpoint.body_keys = keys  # type: ignore[attr-defined]
        endpoint.body_streamed = streamed  # type: ignore[attr-defined]
        return endpoint

    return mark


class Admission:
    """What a process takes on at once: requests, and bytes of their bodies in memory; shared by tenants."""

    def __init__(self, service: str, requests: int, body_bytes: int) -> None:
        self.requests = Slots(requests, "places for requests")
        self.body_bytes = Slots(body_bytes, "bytes for request bodies")
        self._service = service
        self._full_at = -SATURATED_SECONDS

    @property
    def reasons(self) -> list[str]:
        """Why the process is not ready: a moment ago it refused a request because all its places were taken."""
        if time.monotonic() >= self._full_at + SATURATED_SECONDS:
            return []
        return [f"requests are refused: all {self.requests.total} places are taken"]

    def note_refused(self) -> None:
        """Count a refusal, and remember it where the process itself is full, not one tenant's share."""
        HTTP_REFUSED.labels(self._service).inc()
        if self.requests.is_full:
            self._full_at = time.monotonic()


class Gatekeeper:
    """The outermost layer (ASGI): admits requests, measures and logs them, and answers every error with a problem."""

    def __init__(self, app: ASGIApp, service: str, verifier: TokenVerifier, admission: Admission) -> None:
        self._app = app
        self._service = service
        self._verifier = verifier
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(Request(scope, receive), send, self._admission)
        started_at = time.perf_counter()
        ids = {"request_id": exchange.request_id, "correlation_id": exchange.correlation_id}
        with structlog.contextvars.bound_contextvars(**ids), request_span(exchange.request, ids) as span:
            try:
                if exchange.path in PUBLIC_PATHS:
                    await self._app(scope, exchange.receive, exchange.send)
                else:
                    await self._serve(exchange)
            except Exception as error:
                if exchange.status is not None:
                    raise
                if isinstance(error, TooManyRequests):
                    self._admission.note_refused()
                response = await problems.answer(exchange.request, error)
                await response(scope, receive, exchange.send)
            finally:
                self._measure(exchange, time.perf_counter() - started_at, span)

    async def _serve(self, exchange: "_Exchange") -> None:
        """Serve a request that needs a token, within its tenant's share of the process."""
        slots = self._admission.requests
        if slots.used >= slots.total:  # a flood is refused before its tokens are looked at
            raise TooManyRequests(f"all {slots.total} request slots are in use; try again later")
        identity = await self._admit(exchange)
        exchange.tenant, exchange.is_program = identity.tenant, identity.is_program
        slots.take(exchange.tenant, operator=identity.is_program)
        HTTP_IN_WORK.labels(self._service).set(slots.used)
        try:
            # All that came at once is counted before any of it costs more: a flood is refused cheaply.
            await asyncio.sleep(0)
            await self._app(exchange.request.scope, exchange.receive, exchange.send)
        finally:
            exchange.release()
            slots.give_back(exchange.tenant)
            HTTP_IN_WORK.labels(self._service).set(slots.used)

    async def _admit(self, exchange: "_Exchange") -> Identity:
        request = exchange.request
        self._check_head(request.scope)
        if "\0" in exchange.path or b"%00" in request.scope["query_string"]:
            raise HTTPException(400, "the path or query contains the character U+0000")
        identity = await self._verifier.verify(request.headers.get("authorization"), request.headers.get(REASON_HEADER))
        if identity.break_glass_reason is not None:
            self._note_broken_glass(exchange, identity)
        request.state.identity = identity
        request.state.context = Context(
            actor=identity.actor,
            correlation_id=exchange.correlation_id,
            traceparent=_valid(_TRACEPARENT, request.headers.get("traceparent")),
            request_id=exchange.request_id,
            break_glass_reason=identity.break_glass_reason,
        )
        return identity

    def _note_broken_glass(self, exchange: "_Exchange", identity: Identity) -> None:
        BREAK_GLASS.labels(self._service).inc()
        log.warning(
            "break_glass_used",
            actor=identity.actor,
            method=exchange.request.method,
            path=exchange.path,
            reason=identity.break_glass_reason,
        )

    def _check_head(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers) > MAX_HEADER_BYTES:
            raise HTTPException(
                431, f"a request has at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them"
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise HTTPException(414, f"a URL's path and query have at most {MAX_TARGET_BYTES} bytes")
        names = [name for name, _ in headers]
        for name in _GIVEN_ONCE:
            if names.count(name) > 1:
                raise HTTPException(400, f"{name.decode()} must be sent only once")

    def _measure(self, exchange: "_Exchange", seconds: float, span: Span) -> None:
        method = exchange.request.method if exchange.request.method in _METHODS else "other"
        route = exchange.route
        status = exchange.status or 500
        HTTP_REQUEST_SECONDS.labels(self._service, method, route, status).observe(seconds)
        if exchange.path not in PUBLIC_PATHS:
            tracing.answered(span, method, route, status, exchange.tenant)
            log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 2))


class _Exchange:
    """One request and what is known of its answer."""

    def __init__(self, request: Request, send: Send, admission: Admission) -> None:
        self.request = request
        self.tenant = ""
        self.is_program = False
        # As it is routed: `request.url` is made of the Host header too, which is the caller's to invent.
        self.path: str = request.scope["path"]
        self.status: int | None = None
        self.request_id = _valid(_ID, request.headers.get("x-request-id")) or uuid.uuid4().hex
        self.correlation_id = _valid(_ID, request.headers.get("x-correlation-id")) or self.request_id
        request.state.request_id = self.request_id
        self._send = send
        self._admission = admission
        self._received = 0
        self._in_memory = 0
        self._waited = 0.0  # seconds, for the client
        self._complete = False

    @property
    def route(self) -> str:
        """The route's template, so that the metrics do not grow with the ids in paths."""
        route = self.request.scope.get("fastapi", {}).get("effective_route_context") or self.request.scope.get("route")
        return getattr(route, "path", "unmatched")

    async def receive(self) -> Message:
        """Receive the body: as it comes where the route streams it, else as a whole, which its tenant's share holds.

        As parts it would take many times its size, if the client sends a few bytes at a time.
        """
        endpoint = self.request.scope.get("endpoint")
        limit = getattr(endpoint, "body_limit", DEFAULT_BODY_LIMIT)
        if self._complete or not self.tenant or getattr(endpoint, "body_streamed", False):
            return await self._receive_part(limit)
        message: Message = {}
        whole = BytesIO()
        while not self._complete:
            message = await self._receive_part(limit)
            if part := message.get("body"):
                self._keep_in_memory(len(part))
                whole.write(part)
        if message["type"] != "http.request":
            return message
        body = whole.getvalue()
        is_json = "json" in self.request.headers.get("content-type", "").lower()
        if is_json and (rule := broken_rule(body, getattr(endpoint, "body_keys", MAX_KEYS))):
            raise HTTPException(400, rule)
        return {**message, "body": body}

    async def _receive_part(self, limit: int) -> Message:
        message = await self._receive_in_time()
        self._received += len(message.get("body", b""))
        if self._received > limit:
            raise HTTPException(413, f"the body is larger than {limit} bytes")
        return message

    def _keep_in_memory(self, size: int) -> None:
        try:
            self._admission.body_bytes.take(self.tenant, size, operator=self.is_program)
        except TooManyRequests as error:
            self._admission.note_refused()
            # What FastAPI meets while it reads a body becomes a 400, unless it is one of these.
            raise HTTPException(429, error.detail, headers={"retry-after": "1"}) from error
        self._in_memory += size

    async def _receive_in_time(self) -> Message:
        if self._complete:
            return await self.request.receive()  # nothing but the client's leave is waited for
        began = time.monotonic()
        patience = BODY_SECONDS + self._received / BODY_BYTES_PER_SECOND - self._waited
        try:
            async with asyncio.timeout(patience):
                message = await self.request.receive()
        except TimeoutError:
            raise HTTPException(
                408, f"after {BODY_SECONDS:.0f} s, a body must arrive at {BODY_BYTES_PER_SECOND} bytes per second"
            ) from None
        self._waited += time.monotonic() - began
        self._complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Give back the memory of the body."""
        self._admission.body_bytes.give_back(self.tenant, self._in_memory)
        self._in_memory = 0

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
