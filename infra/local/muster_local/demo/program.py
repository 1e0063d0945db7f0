"""An HTTP client of the four services."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

# Enough concurrent requests to keep the services busy; more would only queue up there.
_AT_ONCE = 8

# How long to retry: a killed service is back within a few seconds.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


class Unexpected(Exception):
    """A service's reply is not what the story expects."""


def demand(holds: bool, otherwise: str) -> None:
    """Raise Unexpected unless `holds` is true."""
    if not holds:
        raise Unexpected(otherwise)


class ProgramClient:
    """An operator's client for the services.

    It retries a lost request, or one answered with 503, with the same Idempotency-Key. So a command takes effect once,
    whatever happens to the service in between.
    """

    def __init__(self, urls: Mapping[str, str], token: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._urls = urls
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(headers=headers, timeout=60.0, trust_env=False, transport=transport)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._keys: dict[str, set[str]] = {service: set() for service in urls}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    @property
    def commands(self) -> dict[str, int]:
        """The number of audited commands that each service executed; retries do not count."""
        return {service: len(keys) for service, keys in self._keys.items()}

    async def get(self, service: str, path: str, **parameters: str | int) -> Any:
        """The JSON at a path; an agency's data is under `agencies/<id>/`."""
        return (await self._send("GET", service, path, 200, params=parameters)).json()

    async def ask(self, service: str, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON reply to a query with a body; it changes nothing."""
        return (await self._send("POST", service, path, 200, json=body)).json()

    async def etag(self, service: str, path: str) -> str:
        """The ETag of the resource at a path."""
        return (await self._send("GET", service, path, 200)).headers["etag"]

    async def post(
        self,
        service: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        expect: int = 201,
        key: str | None = None,
        if_match: str | None = None,
        audited: bool = True,
    ) -> Any:
        """Send a command and return the reply's JSON.

        `key` is its Idempotency-Key, by default a new one; `if_match` is the ETag of the resource that it changes.
        Only an `audited` command is counted: the use of a feature is not. Raises Unexpected if the status is not
        `expect`.
        """
        headers = {"if-match": if_match} if if_match else {}
        response = await self._send(
            "POST",
            service,
            path,
            expect,
            key=key or uuid.uuid4().hex,
            audited=audited,
            headers=headers,
            json=body or {},
        )
        return response.json()

    async def put(self, service: str, path: str, body: Mapping[str, Any]) -> Any:
        """Replace the resource at a path, and return the reply's JSON."""
        response = await self._send("PUT", service, path, 200, key=uuid.uuid4().hex, json=body)
        return response.json()

    async def upload(
        self,
        service: str,
        path: str,
        content: bytes,
        content_type: str,
        *,
        expect: int = 200,
        audited: bool = True,
    ) -> Any:
        """Send a file and return the reply's JSON."""
        response = await self._send(
            "POST",
            service,
            path,
            expect,
            key=uuid.uuid4().hex,
            audited=audited,
            content=content,
            headers={"content-type": content_type},
        )
        return response.json()

    async def _send(
        self,
        method: str,
        service: str,
        path: str,
        expect: int,
        *,
        key: str | None = None,
        audited: bool = True,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        all_headers = dict(headers or {}) | ({"idempotency-key": key} if key else {})
        url = f"{self._urls[service]}/v1/{path}"
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        async with self._turn:
            while True:
                try:
                    response = await self._http.request(method, url, headers=all_headers, **content)
                except httpx.TransportError as error:
                    away = f"{type(error).__name__}: {error}"
                else:
                    if response.status_code == expect:
                        if key and audited and response.is_success:
                            self._keys[service].add(key)
                        return response
                    away = f"{response.status_code} {response.text[:1000]}"
                    if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                        raise Unexpected(f"{method} {url} answered {away}, not {expect}")
                if time.monotonic() > give_up_at:
                    raise Unexpected(f"{method} {url}: {away}, for {_PATIENCE_SECONDS:.0f} s")
                await asyncio.sleep(_PAUSE_SECONDS)
