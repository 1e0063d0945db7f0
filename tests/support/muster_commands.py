"""Commands of `muster` that run in the test's own process, and the services that they ask."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from typer.testing import CliRunner, Result

from muster_operator.cli import app
from tests.support.services import RunningService


@contextmanager
def quiet_services() -> Iterator[None]:
    """The services of this process log to stderr, since a command's output is on stdout."""
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def served(service: RunningService) -> AsyncIterator[str]:
    """The address of a service that runs in this process."""
    server = uvicorn.Server(uvicorn.Config(service.process.app, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def muster(*arguments: str) -> Result:
    """Run a command as this process, beside the service."""
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)
