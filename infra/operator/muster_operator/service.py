"""An operator's requests to the services."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from muster_operator.failures import BadInput, CommandFailed, NotFound, Refused, TimedOut, Unreachable
from muster_operator.session.tokens import Credential

# A replay of a hundred thousand records takes minutes, and can safely be sent again if it is interrupted.
_SECONDS = 600.0

# A stopped or firewalled service may not even refuse connections.
CONNECT_SECONDS = 10.0

_INVALID_INPUT = "urn:muster:problem:invalid-input"

# Every other error response is a refusal.
_FAILURES: dict[int, type[CommandFailed]] = {
    httpx.codes.BAD_REQUEST: BadInput,
    httpx.codes.UNPROCESSABLE_ENTITY: BadInput,
    httpx.codes.NOT_FOUND: NotFound,
}


@asynccontextmanager
async def connect(
    name: str, url: str, credential: Credential, *, seconds: float = _SECONDS
) -> AsyncIterator["Service"]:
    """A client for the service at `url` that uses a credential's tokens."""
    bearer = Bearer(credential)
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    async with httpx.AsyncClient(base_url=url, auth=bearer, timeout=timeout, trust_env=False) as http:
        yield Service(name, http)


class Bearer(httpx.Auth):
    """Puts the current token into each request: a long command outlives its first token."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Yield the request with the credential's current token. Raises CommandFailed."""
        token = await asyncio.to_thread(self._credential.token)
        request.headers["authorization"] = f"Bearer {token}"
        yield request


class Service:
    """An operator's requests to one service."""

    def __init__(self, name: str, http: httpx.AsyncClient) -> None:
        self.name = name
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at a path. Raises CommandFailed."""
        return (await self._ask("GET", path, params=query)).json()

    async def version(self, path: str) -> str:
        """The ETag of the resource at a path; empty if it has none. Raises CommandFailed."""
        return str((await self._ask("GET", path)).headers.get("etag", ""))

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, if_match: str = "") -> Any:
        """Send a command, conditional on the ETag `if_match` if given; return the reply. Raises CommandFailed."""
        reply = await self._ask("POST", path, json=body, headers={"if-match": if_match} if if_match else {})
        return reply.json() if reply.content else None

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Replace the resource at a path; return the reply. Raises CommandFailed."""
        return (await self._ask("PUT", path, json=body)).json()

    async def send(self, path: str, text: str, media_type: str) -> Any:
        """Send a command whose body is a file; return the reply. Raises CommandFailed."""
        return (await self._ask("POST", path, content=text.encode(), headers={"content-type": media_type})).json()

    async def items(self, path: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """All items of a list, page by page. Raises CommandFailed."""
        after: dict[str, str] = {}
        while True:
            page = await self.get(path, limit="200", **query, **after)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            after = {"after": page["next"]}

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            reply = await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise no_answer(self.name, error) from None
        require_success(self.name, reply)
        return reply


def agency_path(agency_id: str) -> str:
    """The path of an agency's resources in a service."""
    return f"/v1/agencies/{quote(agency_id, safe='')}"


def no_answer(service: str, error: httpx.HTTPError) -> CommandFailed:
    """The error for a request that a service did not answer."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{service} did not answer in time")
    return Unreachable(f"{service} does not answer: {error or type(error).__name__}")


def require_success(service: str, reply: httpx.Response) -> None:
    """Raise BadInput, NotFound, or Refused, with the problem's text, if a service replied with an error."""
    if reply.is_error:
        raise _FAILURES.get(reply.status_code, Refused)(f"{service}: {_said(reply)}")


def _said(reply: httpx.Response) -> str:
    """A problem in one line: each invalid value, or else its detail, with the title if needed."""
    try:
        problem = reply.json()
        if problem.get("type") == _INVALID_INPUT and len(problem.get("errors", ())) > 1:
            return "; ".join(map(_invalid, problem["errors"]))
        detail = problem.get("detail")
        return detail if detail and reply.is_client_error else ": ".join(filter(None, (problem["title"], detail)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{reply.status_code} {reply.reason_phrase}"


def _invalid(error: Mapping[str, Any]) -> str:
    given = "" if error["value"] is None else f" {error['value']!r} is invalid:"
    return f"{error['field']}:{given} {error['rule']}"


async def every_item(services: Mapping[str, Service], path: str, **query: str) -> list[tuple[Service, dict[str, Any]]]:
    """All items of a list that each service has; queries all services concurrently."""

    async def of(service: Service) -> list[tuple[Service, dict[str, Any]]]:
        return [(service, item) async for item in service.items(path, **query)]

    return [found for items in await asyncio.gather(*map(of, services.values())) for found in items]
