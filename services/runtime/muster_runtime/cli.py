"""The command line of every service: `python -m muster_<service> serve | migrate | schema | …`."""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import structlog
import typer
import uvicorn
import uvloop
from pydantic import ValidationError

from muster_runtime.database.dbmate import MigrationFailed, migrate
from muster_runtime.database.schema import MigrationsMissing, Schema
from muster_runtime.exit_statuses import BAD_INPUT, FAILED
from muster_runtime.http.application import openapi
from muster_runtime.http.connections import (
    DRAIN_SECONDS,
    KEEP_ALIVE_SECONDS,
    BoundedProtocol,
    Connections,
    raise_file_limit,
)
from muster_runtime.observability import telemetry, tracing
from muster_runtime.operations import schema as schema_commands
from muster_runtime.process import Process, Role, StartRefused, parse_roles, running
from muster_runtime.secrets import SecretUnusable, explain
from muster_runtime.service import Service
from muster_runtime.settings import Settings

_log = structlog.get_logger(__name__)

Built = TypeVar("Built")


def run(build: Callable[[], Service], schema: Schema) -> None:
    """Run the command line of the service that `build` describes, and whose schema this is.

    The commands about the schema need none of the service's own settings: they run where only a database's secret is.
    """
    app = typer.Typer(add_completion=False, no_args_is_help=True)

    @app.command()
    def serve(
        role: Annotated[list[str], typer.Option(help=f"all, or any of {', '.join(Role)}; may be repeated.")] = ["all"],  # noqa: B006
    ) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        service = _built(build)
        telemetry.configure(service.settings, service.name)
        try:
            roles = parse_roles(role)
        except ValueError as error:
            raise _refusal(f"--role: {error}") from None
        try:
            tracing.start(service.name, service.settings.instance)
            uvloop.run(_serve(service, roles, raise_file_limit()))
        except (StartRefused, tracing.InvalidTracing) as refusal:
            raise _refusal(str(refusal)) from None
        except Exception as error:
            # Python's own report would show the error's message as it is, and that may quote a row or an input.
            _log.critical("service_failed", exc_info=error)
            raise typer.Exit(FAILED) from None
        finally:
            tracing.stop()

    @app.command("migrate")
    def migrate_() -> None:
        """Apply the pending migrations, as the owner role."""
        settings = _built(Settings)
        try:
            migrate(settings.postgres_owner_dsn, schema.name, schema.migrations)
        except (MigrationFailed, MigrationsMissing) as error:
            raise _refusal(str(error)) from None

    @app.command("schema")
    def schema_(
        database: Annotated[bool, typer.Option("--database", help="Ask the database, too.")] = False,
    ) -> None:
        """Print which versions of the schema this code works with, and with --database which the database has, as JSON.

        It connects as the worker, the api, or the owner role, whichever address is set.
        """
        with _schema_commands():
            found = asyncio.run(schema_commands.describe(schema, _built(Settings), database=database))
        typer.echo(json.dumps(found, indent=2))

    @app.command()
    def wait_for_schema(
        timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 300,
    ) -> None:
        """Wait until the database has the schema that this code needs: exit status 6 if it does not in time."""
        with _schema_commands():
            tell = partial(typer.echo, err=True)
            typer.echo(asyncio.run(schema_commands.wait(schema, _built(Settings), timeout, tell)))

    @app.command()
    def rebuild(
        projection: Annotated[str, typer.Argument(metavar="NAME", help="The projection to rebuild.")],
        swap: Annotated[bool, typer.Option("--swap", help="Replace the live projection.")] = False,
        reason: Annotated[str, typer.Option("--reason", help="The reason for --swap; the audit trail keeps it.")] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Rebuild a projection from the topics and compare it with the live one; --swap replaces the live one.

        The exit status is 1 if they differ and not every difference was swapped.
        """
        if swap and not reason:
            raise _refusal("--swap needs a --reason")
        _rebuild(_built(build), projection, reason if swap else None, as_json=as_json)

    @app.command("openapi")
    def openapi_() -> None:
        """Print the OpenAPI 3.1 document of the service's HTTP side."""
        typer.echo(json.dumps(openapi(_built(build)), indent=2))

    app()


def _rebuild(service: Service, projection: str, reason: str | None, *, as_json: bool) -> None:
    # A process that serves prints no table.
    from muster_runtime.operations.rebuild import RebuildFailed, rebuild

    # The command says itself which server does not answer; aiokafka must not log it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        outcome = asyncio.run(rebuild(service, projection, reason))
    except RebuildFailed as failed:
        typer.echo(str(failed), err=True)
        raise typer.Exit(failed.exit_code) from None
    if as_json:
        typer.echo(json.dumps(outcome.data(), indent=2))
    else:
        outcome.show()
    if outcome.remaining:
        raise typer.Exit(FAILED)


@contextmanager
def _schema_commands() -> Generator[None, None, None]:
    try:
        yield
    except MigrationsMissing as error:
        raise _refusal(str(error)) from None
    except schema_commands.SchemaUnknown as unknown:
        typer.echo(str(unknown), err=True)
        raise typer.Exit(unknown.exit_code) from None


class _Server(uvicorn.Server):
    """uvicorn raises a signal again once it has served, which would end the process before it has drained."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to `_serve`."""
        yield


async def _serve(service: Service, roles: frozenset[Role], open_files: int) -> None:
    stopped = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stopped.set)
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    settings = service.settings
    _log.info("service_started", roles=sorted(roles), environment=settings.environment)
    async with running(service, roles) as process:
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


def _log_unhandled(_loop: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
    """Log an error that nothing handled. asyncio's own report would quote the error's message."""
    _log.error("task_failed", reason=found.get("message"), exc_info=found.get("exception"))


async def _until_stopped(server: uvicorn.Server, process: Process, stopped: asyncio.Event) -> None:
    """Serve until a signal, or until a duty fails: then stop with its error, because only a restart helps."""
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


def _built(build: Callable[[], Built]) -> Built:
    try:
        return build()
    except (SecretUnusable, ValidationError) as error:
        raise _refusal(explain(error)) from None


def _refusal(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(BAD_INPUT)
