"""The `muster` command."""

import logging
import signal
from importlib.metadata import version
from typing import Annotated

import typer

from muster_operator.group import Root

app = typer.Typer(cls=Root, no_args_is_help=True, rich_markup_mode=None)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"muster {version('muster-operator')} (contracts {version('muster-contracts')})")
        raise typer.Exit


@app.callback()
def muster(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Operate Muster."""


def main() -> None:
    """The entry point of the console script."""
    # A command itself reports which server does not answer; aiokafka must not log it too.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Like Ctrl-C, SIGTERM ends a command; without a handler, Linux ignores it for a container's first process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()
