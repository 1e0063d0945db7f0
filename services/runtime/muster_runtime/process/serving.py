"""Serves a service over HTTP and runs its duties until a signal."""

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from functools import partial
from typing import Any, cast

import structlog
import uvicorn
import uvloop

from muster_runtime.http.connections import (
    DRAIN_SECONDS,
    KEEP_ALIVE_SECONDS,
    BoundedProtocol,
    Connections,
    raise_file_limit,
)
from muster_runtime.observability import telemetry, tracing
from muster_runtime.process.roles import Role
from muster_runtime.process.running import Process, running
from muster_runtime.process.start_checks import StartRefused
from muster_runtime.service import Service

_log = structlog.get_logger(__name__)


class ServeFailed(Exception):
    """The process cannot continue; the log says why."""


def serve(service: Service, roles: frozenset[Role]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises StartRefused and ServeFailed."""
    telemetry.configure(service.settings, service.name)
    try:
        tracing.start(service.name, service.settings.instance)
        uvloop.run(_serve(service, roles, raise_file_limit()))
    except tracing.InvalidTracing as invalid:
        raise StartRefused(str(invalid)) from None
    except StartRefused:
        raise
    except Exception as error:
        # Python's own traceback would show the error's message in full, and that may quote a row or an input.
        _log.critical("service_failed", exc_info=error)
        raise ServeFailed from None
    finally:
        tracing.stop()


class _Server(uvicorn.Server):
    """Disables uvicorn's signal handling.

    uvicorn would raise the signal again after serving, and end the process before it has drained.
    """

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to `_serve`."""
        yield


async def _serve(service: Service, roles: frozenset[Role], open_files: int) -> None:
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    settings = service.settings
    _log.info("service_started", roles=sorted(roles), environment=settings.environment)
    async with AsyncExitStack() as stack:
        stopped = asyncio.Event()
        process = await _started(stack, running(service, roles), stopped)
        if process is None:
            return
        connections = Connections(
            service.name, settings.http_connections, settings.http_connections_per_address, open_files=open_files
        )
        config = uvicorn.Config(
            process.app,
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            server_header=False,
            http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, connections)),
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        await _until_stopped(_Server(config), process, stopped)
    _log.info("service_stopped")


async def _started(
    stack: AsyncExitStack, starting: AbstractAsyncContextManager[Process], stopped: asyncio.Event
) -> Process | None:
    """The process once it runs; None if a signal came before, because a start may wait for Kafka without a limit.

    `stack` ends it, and a signal sets `stopped`.
    """
    try:
        async with asyncio.timeout(None) as patience:

            def stop() -> None:
                stopped.set()  # also if the start swallows its cancellation, or ends at this moment
                _on_signal(stopped.set)
                patience.reschedule(asyncio.get_running_loop().time())

            _on_signal(stop)
            process = await stack.enter_async_context(starting)
    except TimeoutError:
        if not patience.expired():
            raise
        _log.info("service_stopped", reason="a signal during the start")
        return None
    _on_signal(stopped.set)
    return process


def _on_signal(handler: Callable[[], None]) -> None:
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, handler)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
    """Log an unhandled error. asyncio's own report would quote the error's message."""
    _log.error("task_failed", reason=found.get("message"), exc_info=found.get("exception"))


async def _until_stopped(server: uvicorn.Server, process: Process, stopped: asyncio.Event) -> None:
    """Serve until a signal or until a duty fails; a failed duty's error is raised, because only a restart helps."""
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stopped.wait())
    ends: set[asyncio.Future[Any]] = {serving, stopping, process.failed}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    _log.info("service_stopping", reason="a duty failed" if process.failed.done() else "a signal")
    server.should_exit = True
    await serving
    if process.failed.done():
        process.failed.result()
