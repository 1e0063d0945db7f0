"""What every request goes through first: its token, its quotas, its tenant's share of the process, the access log."""

import asyncio
import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from muster_runtime import spans
from muster_runtime.context import Context
from muster_runtime.errors import TooManyRequests
from muster_runtime.http import problems
from muster_runtime.http.admission import Admission
from muster_runtime.http.auth import PUBLIC_PATHS
from muster_runtime.http.exchange import Exchange
from muster_runtime.http.identity import Identity
from muster_runtime.http.rate_limits import QuotaExceeded, RateLimits
from muster_runtime.http.request_rules import check_coding
from muster_runtime.http.request_span import request_span
from muster_runtime.http.tokens import REASON_HEADER, TokenVerifier
from muster_runtime.observability import tracing
from muster_runtime.observability.telemetry import BREAK_GLASS, HTTP_IN_WORK, HTTP_RATE_LIMITED, HTTP_REQUEST_SECONDS
from muster_runtime.spans import Span

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_BYTES = 8 * 1024

# Headers that may be sent only once: with two values, a proxy might use the last, and a service the first.
_GIVEN_ONCE = (b"authorization", b"content-type", b"idempotency-key", b"if-match", REASON_HEADER.lower().encode())

# Methods with metrics of their own; a made-up method must not create a new one.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# An ID or a word of a route. Any other segment of a path may contain personal data, such as an e-mail address.
_KNOWN_SEGMENT = re.compile(r"[A-Za-z0-9_.*-]*")

log = structlog.get_logger(__name__)


class Gatekeeper:
    """The outermost layer (ASGI): admits requests, measures and logs them, and turns every error into a problem."""

    def __init__(
        self,
        app: ASGIApp,
        service: str,
        verifier: TokenVerifier,
        limits: RateLimits,
        admission: Admission,
        *,
        behind_tls: bool,
    ) -> None:
        self._app = app
        self._service = service
        self._verifier = verifier
        self._limits = limits
        self._admission = admission
        self._behind_tls = behind_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _without_cookies(scope)
        exchange = Exchange(Request(scope, receive), send, self._admission, behind_tls=self._behind_tls)
        started_at = time.perf_counter()
        ids = {"request_id": exchange.request_id, "correlation_id": exchange.correlation_id}
        with structlog.contextvars.bound_contextvars(**ids), request_span(exchange.request, ids) as span:
            try:
                _check_head(scope)
                _check_host(scope)
                if exchange.path in PUBLIC_PATHS:
                    await self._app(scope, exchange.receive, exchange.send)
                else:
                    await self._serve(exchange)
            except Exception as error:
                if exchange.status is not None:
                    raise
                self._note_refused(error)
                response = await problems.answer(exchange.request, error)
                await response(scope, receive, exchange.send)
            finally:
                self._measure(exchange, time.perf_counter() - started_at, span)

    async def _serve(self, exchange: Exchange) -> None:
        """Serve a request that needs a token, within its tenant's share of the process."""
        slots = self._admission.requests
        if slots.used >= slots.total:  # a flood is refused before its tokens are checked
            raise TooManyRequests(f"all {slots.total} request slots are in use; try again later")
        identity = await self._admit(exchange)
        self._count(exchange, identity)
        check_coding(exchange.request)
        exchange.tenant = identity.tenant
        slots.take(exchange.tenant, operator=identity.is_program)
        HTTP_IN_WORK.labels(self._service).set(slots.used)
        try:
            # Count all requests that arrived together before processing any, so that a flood is refused cheaply.
            await asyncio.sleep(0)
            await self._app(exchange.request.scope, exchange.receive, exchange.send)
        finally:
            exchange.release()
            slots.give_back(exchange.tenant)
            HTTP_IN_WORK.labels(self._service).set(slots.used)

    async def _admit(self, exchange: Exchange) -> Identity:
        request = exchange.request
        if "\0" in exchange.path or b"%00" in request.scope["query_string"]:
            raise HTTPException(400, "the path or query contains the character U+0000")
        identity = await self._verifier.verify(request.headers.get("authorization"), request.headers.get(REASON_HEADER))
        if identity.break_glass_reason is not None:
            self._note_broken_glass(exchange, identity)
        request.state.identity = exchange.identity = identity
        request.state.context = Context(
            actor=identity.actor,
            correlation_id=exchange.correlation_id,
            traceparent=spans.valid(request.headers.get("traceparent")),
            request_id=exchange.request_id,
            break_glass_reason=identity.break_glass_reason,
        )
        return identity

    def _note_broken_glass(self, exchange: Exchange, identity: Identity) -> None:
        BREAK_GLASS.labels(self._service).inc()
        log.warning(
            "break_glass_used",
            actor=identity.actor,
            method=exchange.request.method,
            path=_loggable(exchange.path),
            reason=identity.break_glass_reason,
        )

    def _count(self, exchange: Exchange, identity: Identity) -> None:
        try:
            self._limits.take(identity)
        finally:
            exchange.fields += self._limits.fields(identity)

    def _note_refused(self, error: Exception) -> None:
        if isinstance(error, QuotaExceeded):
            for quota in error.extensions["violated-policies"]:
                HTTP_RATE_LIMITED.labels(self._service, quota).inc()
        elif isinstance(error, TooManyRequests):
            self._admission.note_refused()

    def _measure(self, exchange: Exchange, seconds: float, span: Span) -> None:
        method = exchange.request.method if exchange.request.method in _METHODS else "other"
        route = exchange.route
        status = exchange.status or 500
        HTTP_REQUEST_SECONDS.labels(self._service, method, route, status).observe(seconds)
        if exchange.path not in PUBLIC_PATHS:
            tracing.answered(span, method, route, status, exchange.tenant)
            known = {
                "agency_id": exchange.agency,
                "actor": exchange.identity and exchange.identity.actor,
                "problem": exchange.problem,
            }
            log.info(
                "request",
                method=method,
                route=route,
                status=status,
                milliseconds=round(seconds * 1000, 2),
                **{name: value for name, value in known.items() if value is not None},
            )


def _check_host(scope: Scope) -> None:
    """Require one Host in HTTP/1.1 (RFC 9112, 3.2): with two, a proxy and a service may each use a different one."""
    hosts = sum(name == b"host" for name, _ in scope["headers"])
    if hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
        raise HTTPException(400, "a request must have exactly one Host header")


def _loggable(path: str) -> str:
    return "/".join(segment if _KNOWN_SEGMENT.fullmatch(segment) else "…" for segment in path.split("/"))


def _without_cookies(scope: Scope) -> Scope:
    """Drop cookies: no route uses them.

    Parsing a hostile one takes seconds in Python before 3.11.10 (CVE-2024-7592).
    """
    return {**scope, "headers": [header for header in scope["headers"] if header[0] != b"cookie"]}


def _check_head(scope: Scope) -> None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers) > MAX_HEADER_BYTES:
        raise HTTPException(431, f"there must be at most {MAX_HEADERS} headers, of {MAX_HEADER_BYTES} bytes in all")
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        raise HTTPException(414, f"a URL's path and query must have at most {MAX_TARGET_BYTES} bytes")
    names = [name for name, _ in headers]
    for name in _GIVEN_ONCE:
        if names.count(name) > 1:
            raise HTTPException(400, f"{name.decode()} must be sent only once")
