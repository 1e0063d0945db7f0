"""The command line of every service: `python -m muster_<service> serve | migrate | schema | …`."""

import asyncio
import gc
import json
import logging
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer
from pydantic import ValidationError

from muster_runtime.database import schema_commands
from muster_runtime.database.dbmate import MigrationFailed, migrate
from muster_runtime.database.schema import MigrationsMissing, Schema
from muster_runtime.exit_statuses import BAD_INPUT, FAILED, CommandFailed
from muster_runtime.process.roles import Role, parse_roles
from muster_runtime.secrets import SecretUnusable, explain
from muster_runtime.settings import Settings
from muster_runtime.text import check_reason

if TYPE_CHECKING:
    from muster_runtime.service import Service

Built = TypeVar("Built")


def run(bootstrap: str, schema: Schema) -> None:
    """Run the command line of a service: `bootstrap` is the module whose `build` describes it; `schema` is its schema.

    The commands about the schema need none of the service's own settings, so they run with only a database's secret.
    They do not import the service either, so a pod that waits for its schema is ready in a fifth of the time.
    """
    app = typer.Typer(add_completion=False, no_args_is_help=True)

    @app.command()
    def serve(
        role: Annotated[list[str], typer.Option(help=f"all, or any of {', '.join(Role)}. Repeatable.")] = ["all"],  # noqa: B006
    ) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        try:
            roles = parse_roles(role)
        except ValueError as error:
            raise _refusal(f"--role: {error}") from None
        service = _service(bootstrap)
        from muster_runtime.process import serving
        from muster_runtime.process.start_checks import StartRefused

        try:
            serving.serve(service, roles)
        except StartRefused as refusal:
            raise _refusal(str(refusal)) from None
        except serving.ServeFailed:
            raise typer.Exit(FAILED) from None

    @app.command("migrate")
    def migrate_() -> None:
        """Apply pending migrations as the owner role."""
        settings = _built(Settings)
        with _exit_statuses():
            migrate(settings.postgres_owner_dsn, schema.name, schema.migrations)

    @app.command("schema")
    def schema_(
        database: Annotated[bool, typer.Option("--database", help="Also query the database.")] = False,
    ) -> None:
        """Print which schema versions this code works with and, with --database, which one the database has, as JSON.

        It connects as the worker, api, or owner role, depending on which address is set.
        """
        with _exit_statuses():
            found = asyncio.run(schema_commands.describe(schema, _built(Settings), database=database))
        typer.echo(json.dumps(found, indent=2))

    @app.command()
    def wait_for_schema(
        timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 300,
    ) -> None:
        """Wait until the database has the schema that this code needs. The exit status is 6 if it times out."""
        with _exit_statuses():
            tell = partial(typer.echo, err=True)
            typer.echo(asyncio.run(schema_commands.wait(schema, _built(Settings), timeout, tell)))

    @app.command()
    def rebuild(
        projection: Annotated[str, typer.Argument(metavar="NAME", help="The projection to rebuild.")],
        swap: Annotated[bool, typer.Option("--swap", help="Replace the live projection.")] = False,
        reason: Annotated[
            str,
            typer.Option(
                "--reason", help="The reason for --swap, of at least three characters; the audit trail keeps it."
            ),
        ] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Rebuild a projection from the topics and compare it with the live one; --swap replaces the live one.

        The exit status is 1 if they differ, unless every difference was swapped.
        """
        if swap and not reason:
            raise _refusal("--swap needs a --reason")
        _rebuild(_service(bootstrap), projection, _checked(reason) if swap else None, as_json=as_json)

    @app.command("openapi")
    def openapi_() -> None:
        """Print the OpenAPI 3.1 document of the service's HTTP API."""
        from muster_runtime.http.application import openapi

        typer.echo(json.dumps(openapi(_service(bootstrap)), indent=2))

    # Like Ctrl-C, SIGTERM ends a command; without a handler, Linux ignores it for a container's first process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


def _checked(reason: str) -> str:
    try:
        return check_reason(reason)
    except ValueError as error:
        raise _refusal(f"--reason {reason}: {error}") from None


def _rebuild(service: "Service", projection: str, reason: str | None, *, as_json: bool) -> None:
    from muster_runtime.operations.rebuild import rebuild

    # The command reports which server does not respond, so aiokafka must not log it too.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with _exit_statuses():
        outcome = asyncio.run(rebuild(service, projection, reason))
    if as_json:
        typer.echo(json.dumps(outcome.data(), indent=2))
    else:
        outcome.show()
    if outcome.remaining:
        raise typer.Exit(FAILED)


@contextmanager
def _exit_statuses() -> Generator[None, None, None]:
    try:
        yield
    except (MigrationFailed, MigrationsMissing) as error:
        raise _refusal(str(error)) from None
    except CommandFailed as failed:
        typer.echo(str(failed), err=True)
        raise typer.Exit(failed.exit_code) from None


def _service(bootstrap: str) -> "Service":
    gc.disable()  # collecting objects that stay would take a quarter of the startup time
    try:
        return cast("Service", _built(import_module(bootstrap).build))
    finally:
        gc.freeze()
        gc.enable()


def _built(build: Callable[[], Built]) -> Built:
    try:
        return build()
    except (SecretUnusable, ValidationError) as error:
        raise _refusal(explain(error)) from None


def _refusal(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(BAD_INPUT)
