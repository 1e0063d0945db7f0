"""One request and its response: its IDs, its body within the route's limits, and the headers of every response."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Send

from muster_contracts import is_agency_id
from muster_runtime.errors import TooManyRequests
from muster_runtime.http.admission import Admission
from muster_runtime.http.identity import Identity
from muster_runtime.http.json_shape import MAX_KEYS, broken_rule
from muster_runtime.http.rate_limits import Fields

MEBIBYTE = 1024 * 1024

DEFAULT_BODY_LIMIT = 2 * MEBIBYTE

# How long a body may keep its route waiting: BODY_SECONDS, plus one second per BODY_BYTES_PER_SECOND bytes received.
BODY_SECONDS = 10.0
BODY_BYTES_PER_SECOND = 16 * 1024

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_POLICY = b"content-security-policy"

_NOTHING_LOADED = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")

# Browsers must not cache a response, sniff its type, or share it with another site.
_EVERY_ANSWER: Fields = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

# For a year, browsers connect only over TLS (RFC 6797, 6.1).
_TLS_ALONE = (b"strict-transport-security", b"max-age=31536000")

E = TypeVar("E", bound=Callable[..., Any])


def body_limit(size: int, *, keys: int = MAX_KEYS, streamed: bool = False) -> Callable[[E], E]:
    """Let a route accept a body of up to `size` bytes. Put it between the route's decorator and the function.

    A JSON body may have at most `keys` keys. A `streamed` body is never in memory as a whole, and does not count toward
    the memory limit.
    """

    def mark(endpoint: E) -> E:
        endpoint.body_limit = size  # type: ignore[attr-defined]
        endpoint.body_keys = keys  # type: ignore[attr-defined]
        endpoint.body_streamed = streamed  # type: ignore[attr-defined]
        return endpoint

    return mark


class Exchange:
    """One request and what is known of its response."""

    def __init__(self, request: Request, send: Send, admission: Admission, *, behind_tls: bool) -> None:
        self.request = request
        self.identity: Identity | None = None
        self.tenant = ""
        # The path as it is routed. `request.url` also contains the Host header, which the caller can invent.
        self.path: str = request.scope["path"]
        self.status: int | None = None
        self.request_id = _valid_id(request.headers.get("x-request-id")) or uuid.uuid4().hex
        self.correlation_id = _valid_id(request.headers.get("x-correlation-id")) or self.request_id
        request.state.request_id = self.request_id
        self.fields: Fields = [
            (b"x-request-id", self.request_id.encode()),
            (b"x-correlation-id", self.correlation_id.encode()),
            *_EVERY_ANSWER,
            *([_TLS_ALONE] if behind_tls else ()),
        ]
        self._send = send
        self._admission = admission
        self._received = 0
        self._in_memory = 0
        self._waited = 0.0  # seconds waited for the client
        self._complete = False

    @property
    def route(self) -> str:
        """The route's template, so that metrics do not grow with the IDs in paths."""
        route = self.request.scope.get("fastapi", {}).get("effective_route_context") or self.request.scope.get("route")
        return getattr(route, "path", "unmatched")

    @property
    def agency(self) -> str | None:
        """The agency that the path names, if the caller may act for it; otherwise the token's agencies."""
        if self.identity is None:
            return None
        named = self.request.scope.get("path_params", {}).get("agency_id", "")
        return named if is_agency_id(named) and self.identity.may_act_for(named) else self.identity.tenant

    @property
    def problem(self) -> str | None:
        """The slug of the problem that the response is, if it is one."""
        slug: str | None = getattr(self.request.state, "problem", None)
        return slug

    async def receive(self) -> Message:
        """Receive the body: in parts if the route streams it, otherwise as a whole, which counts in its tenant's share.

        As parts, it would take many times its size in memory if the client sends a few bytes at a time.
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
            self._admission.body_bytes.take(
                self.tenant, size, operator=self.identity is not None and self.identity.is_program
            )
        except TooManyRequests as error:
            self._admission.note_refused()
            # FastAPI turns any other error while it reads a body into a 400.
            raise HTTPException(429, error.detail, headers={"retry-after": "1"}) from error
        self._in_memory += size

    async def _receive_in_time(self) -> Message:
        if self._complete:
            return await self.request.receive()  # only waits for the client to disconnect
        began = time.monotonic()
        patience = BODY_SECONDS + self._received / BODY_BYTES_PER_SECOND - self._waited
        try:
            async with asyncio.timeout(patience):
                message = await self.request.receive()
        except TimeoutError:
            raise HTTPException(
                408, f"after {BODY_SECONDS:.0f} s, a body must average {BODY_BYTES_PER_SECOND} bytes per second"
            ) from None
        self._waited += time.monotonic() - began
        self._complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Release the memory of the body."""
        self._admission.body_bytes.give_back(self.tenant, self._in_memory)
        self._in_memory = 0

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            policy = () if any(name == _POLICY for name, _ in headers) else (_NOTHING_LOADED,)
            message["headers"] = [*headers, *self.fields, *policy]
        await self._send(message)


def _valid_id(value: str | None) -> str | None:
    return value if value is not None and _ID.fullmatch(value) else None
