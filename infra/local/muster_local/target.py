"""The servers that an operator's command uses: the stack's in a home folder, or those that the environment names."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.console import Console

from muster_contracts import SERVICES
from muster_local.stack import DEFAULT_HOME, Stack

T = TypeVar("T")

# The scopes of a token of the stack's own issuer, unless a command needs others.
OPERATOR = tuple(f"{service}:operate" for service in SERVICES)

# A replay of a hundred thousand records takes minutes, and is safe to resend if it is interrupted.
_SECONDS = 600.0

HomeOption = Annotated[Path, typer.Option("--home", help="The folder of the stack.")]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="MUSTER_TOKEN", help="An operator's bearer token. Default: one from the stack's issuer."),
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only this service. Default: all four.")]

console = Console()


class Refused(Exception):
    """A service refused a request; the message is the problem's."""


@dataclass(frozen=True)
class Target:
    """Where the services, Postgres (as superuser) and Kafka are; what is not known is empty."""

    urls: Mapping[str, str]
    token: str
    admin_dsn: str
    bootstrap: str
    topic_prefix: str

    @classmethod
    def find(cls, home: Path, token: str | None = None, scopes: Sequence[str] = OPERATOR) -> "Target":
        """The stack that runs in a home folder; what the environment names takes its place.

        MUSTER_<SERVICE>_URL, MUSTER_ADMIN_DSN, MUSTER_KAFKA_BOOTSTRAP with MUSTER_TOPIC_PREFIX.
        """
        stack = Stack.running(home)
        urls = {service: os.environ.get(f"MUSTER_{service.upper()}_URL", "") for service in SERVICES}
        if stack is None:
            return cls(
                {service: url for service, url in urls.items() if url},
                token or "",
                os.environ.get("MUSTER_ADMIN_DSN", ""),
                os.environ.get("MUSTER_KAFKA_BOOTSTRAP", ""),
                os.environ.get("MUSTER_TOPIC_PREFIX", ""),
            )
        known = stack.state().processes
        return cls(
            {name: urls[name] or known[name].address for name in SERVICES if urls[name] or name in known},
            token or stack.token(*scopes),
            os.environ.get("MUSTER_ADMIN_DSN") or stack.admin_dsn,
            stack.bootstrap,
            stack.topic_prefix,
        )

    def require(self, *names: str) -> "Target":
        """Raise BadParameter where one of `urls`, `admin_dsn`, `bootstrap` is not known."""
        how = {
            "urls": "MUSTER_<SERVICE>_URL",
            "admin_dsn": "MUSTER_ADMIN_DSN",
            "bootstrap": "MUSTER_KAFKA_BOOTSTRAP",
        }
        for name in names:
            if not getattr(self, name):
                raise typer.BadParameter(f"no stack is running in the home folder, and {how[name]} is not set")
        return self

    @asynccontextmanager
    async def services(self, only: str | None = None) -> AsyncIterator[dict[str, "Service"]]:
        """Each service by its name, or one alone. Raises BadParameter where there is none."""
        self.require("urls")
        if only is not None and only not in self.urls:
            raise typer.BadParameter(f"--service {only}: must be one of {', '.join(self.urls)}")
        async with AsyncExitStack() as stack:
            opened = {}
            for name, url in self.urls.items():
                if only in (None, name):
                    headers = {"authorization": f"Bearer {self.token}"}
                    http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_SECONDS, trust_env=False)
                    opened[name] = Service(name, await stack.enter_async_context(http))
            yield opened


class Service:
    """An operator's requests to one service."""

    def __init__(self, name: str, http: httpx.AsyncClient) -> None:
        self.name = name
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        """What is at an address. Raises Refused."""
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a command. Raises Refused."""
        return await self._ask("POST", path, json=body)

    async def items(self, path: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        after: dict[str, str] = {}
        while True:
            page = await self.get(path, limit="200", **query, **after)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            after = {"after": page["next"]}

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            reply = await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise Refused(f"{self.name} does not answer: {error or type(error).__name__}") from None
        if reply.is_error:
            problem = reply.json()
            raise Refused(f"{self.name}: {problem['title']}: {problem.get('detail', '')}")
        return reply.json() if reply.content else None


async def every_item(services: Mapping[str, Service], path: str, **query: str) -> list[tuple[Service, dict[str, Any]]]:
    """Every item of a list that each service has, all of them asked at once."""

    async def of(service: Service) -> list[tuple[Service, dict[str, Any]]]:
        return [(service, item) async for item in service.items(path, **query)]

    return [found for items in await asyncio.gather(*map(of, services.values())) for found in items]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do an operator's work; what is refused becomes a line and exit status 1."""
    try:
        return asyncio.run(work)
    except Refused as refused:
        console.print(f"[red]{refused}[/red]", highlight=False)
        raise typer.Exit(1) from None


def on_target(work: Callable[..., Coroutine[Any, Any, bool | None]]) -> Callable[..., None]:
    """Make a command of an operator's work on a Target: the one that --home, --token and the environment name.

    The exit status is 1 where the work answers False.
    """
    _, *own = inspect.signature(work).parameters.values()
    options = [
        Parameter("home", Parameter.KEYWORD_ONLY, default=DEFAULT_HOME, annotation=HomeOption),
        Parameter("token", Parameter.KEYWORD_ONLY, default=None, annotation=TokenOption),
    ]

    @wraps(work)
    def command(*, home: Path, token: str | None, **arguments: Any) -> None:
        if run(work(Target.find(home, token), **arguments)) is False:
            raise typer.Exit(1)

    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return command
