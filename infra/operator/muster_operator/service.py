"""An operator's requests to the services."""

import asyncio
import re
import ssl
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

# The seconds before each further attempt after a refused connection. A new pod's address takes a moment
# to reach the network policies of other nodes, which refuse its connections until then.
_REFUSED_PAUSES = (0.5, 1.0)

# Visible ASCII characters.
_TOKEN = re.compile(r"[\x21-\x7e]+")

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
    """A client for the service at `url` that uses a credential's tokens. Raises BadInput for an invalid URL."""
    async with client(name, url, credential, seconds) as http:
        yield Service(name, http)


def client(name: str, url: str, credential: Credential, seconds: float) -> httpx.AsyncClient:
    """An HTTP client for the service at `url` that uses a credential's tokens. Raises BadInput for an invalid URL."""
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    try:
        return httpx.AsyncClient(
            base_url=url,
            auth=Bearer(credential),
            timeout=timeout,
            # The system's authorities, or those in SSL_CERT_FILE; httpx would only know its own.
            transport=_Patient(verify=ssl.create_default_context(), trust_env=False),
            trust_env=False,
        )
    except httpx.InvalidURL:  # its message may contain part of a password
        raise BadInput(f"MUSTER_{name.upper()}_URL must be a URL, such as https://{name}.example") from None


class _Patient(httpx.AsyncHTTPTransport):
    """Tries again if a connection is refused, since nothing has been sent."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response. Raises httpx.TransportError."""
        for pause in _REFUSED_PAUSES:
            try:
                return await super().handle_async_request(request)
            except httpx.ConnectError:
                await asyncio.sleep(pause)
        return await super().handle_async_request(request)


class Bearer(httpx.Auth):
    """Puts the current token into each request: a long command outlives its first token."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Yield the request with the credential's current token. Raises CommandFailed."""
        token = await asyncio.to_thread(self._credential.token)
        # The client's own error would quote the token.
        if not _TOKEN.fullmatch(token):
            rule = "the token contains characters that no token may have, such as a space or a line break"
            raise BadInput(f"{self._credential.origin}: {rule}")
        request.headers["authorization"] = f"Bearer {token}"
        yield request


class Service:
    """An operator's requests to one service."""

    def __init__(self, name: str, http: httpx.AsyncClient) -> None:
        self.name = name
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at a path. Raises CommandFailed."""
        return (await self._ask("GET", path, params=query))[0]

    async def version(self, path: str) -> str:
        """The ETag of the resource at a path; empty if it has none. Raises CommandFailed."""
        return str((await self._ask("GET", path))[1].get("etag", ""))

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, if_match: str = "") -> Any:
        """Send a command, conditional on the ETag `if_match` if given; return the reply. Raises CommandFailed."""
        headers = {"if-match": if_match} if if_match else {}
        return (await self._ask("POST", path, json=body, headers=headers))[0]

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Replace the resource at a path; return the reply. Raises CommandFailed."""
        return (await self._ask("PUT", path, json=body))[0]

    async def send(self, path: str, text: str, media_type: str) -> Any:
        """Send a command whose body is a file; return the reply. Raises CommandFailed."""
        return (await self._ask("POST", path, content=text.encode(), headers={"content-type": media_type}))[0]

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

    async def _ask(self, method: str, path: str, **more: Any) -> tuple[Any, httpx.Headers]:
        """The reply's JSON and its headers."""
        try:
            reply = await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise no_answer(self.name, error) from None
        return json_of(self.name, reply), reply.headers


def agency_path(agency_id: str) -> str:
    """The path of an agency's resources in a service."""
    return f"/v1/agencies/{quote(agency_id, safe='')}"


def no_answer(service: str, error: httpx.HTTPError) -> CommandFailed:
    """The error for a request that a service did not answer."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{service} did not answer in time")
    return Unreachable(f"{service} does not answer: {error or type(error).__name__}")


def json_of(service: str, reply: httpx.Response) -> Any:
    """A service's reply; None for 204. Raises CommandFailed unless it is a success with JSON."""
    require_success(service, reply)
    if reply.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        return reply.json()
    except ValueError:
        raise elsewhere(service, "the reply is not JSON") from None


def require_success(service: str, reply: httpx.Response) -> None:
    """Raise BadInput, NotFound, or Refused, with the problem's text, unless a service replied with a success."""
    if reply.is_error:
        raise _FAILURES.get(reply.status_code, Refused)(f"{service}: {_said(reply)}")
    if not reply.is_success:
        location = reply.headers.get("location", "nowhere")
        raise elsewhere(service, f"the reply is {reply.status_code} {reply.reason_phrase} to {location}")


def elsewhere(service: str, found: str) -> BadInput:
    """The error for a reply that no service sends, but a proxy or another server may."""
    return BadInput(f"{service}: {found}: MUSTER_{service.upper()}_URL must be the service's own address")


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
