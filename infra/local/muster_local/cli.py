"""The `muster` command, for operators and newcomers."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from muster_contracts import SERVICES
from muster_local import clock, deadlines, parked, readiness, seats, streams, topic_plan
from muster_local.demo.cli import demo
from muster_local.drill import drill
from muster_local.home import Home, ProcessState
from muster_local.private import HomeRefused
from muster_local.readiness import Readiness
from muster_local.rebuild import rebuild
from muster_local.reconcile.cli import reconcile
from muster_local.scopes import SCOPES
from muster_local.stack import DEFAULT_HOME, Stack, StackFailed
from muster_runtime.http.auth import is_agency_or_all

_FOLLOW_SECONDS = 0.2

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run Muster on this machine, and operate any Muster."
)
app.add_typer(topic_plan.app, name="topics")
app.add_typer(clock.app, name="clock")
app.add_typer(parked.app, name="parked")
app.add_typer(deadlines.app, name="deadlines")
app.add_typer(streams.app, name="streams")
app.add_typer(seats.app, name="seats")
app.command()(demo)
app.command()(drill)
app.command()(reconcile)
app.command()(rebuild)

console = Console()

HomeOption = Annotated[Path, typer.Option("--home", help="The folder of the stack: its data, secrets, and logs.")]


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Set a port, such as billing=8003. Repeatable.")
    ] = None,
    maintenance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE", help="Run this service with its operator routes only, as after a restore. Repeatable."
        ),
    ] = None,
) -> None:
    """Start Postgres, Kafka, the mail sink, and the four services, and leave them running."""
    if unknown := set(maintenance or ()) - set(SERVICES):
        raise typer.BadParameter(f"--maintenance {min(unknown)}: must be one of {', '.join(SERVICES)}")
    try:
        stack = asyncio.run(_start(home, _ports(port or []), maintenance or []))
    except StackFailed as failure:
        console.print(f"[red]The stack did not start:[/red] {escape(str(failure))}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")
        raise typer.Exit(130) from None
    console.print(_addresses(stack))


@app.command()
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop everything. The data stays."""
    with console.status("Stopping"):
        asyncio.run(Stack(home).stop())
    console.print("Nothing is running.")


@app.command()
def status(home: HomeOption = DEFAULT_HOME) -> None:
    """Show whether each process is ready, and if not, why. The exit status is 1 unless all are ready."""
    state = Stack(home).state()
    answers = asyncio.run(_ask_all(list(state.processes.values())))
    address = Column("address", no_wrap=True)
    table = Table("process", "pid", address, "ready", "outbox", "oldest", "lag", "parked", box=None, pad_edge=False)
    for process, answer in answers:
        table.add_row(
            process.name,
            str(process.pid or "-"),
            _shown(process.address),
            _ready(answer),
            _number(answer.outbox_rows),
            "-" if answer.outbox_oldest_seconds is None else f"{answer.outbox_oldest_seconds:.1f} s",
            _number(answer.lag),
            _number(answer.parked),
        )
    console.print(table if answers else f"Nothing is running in {home} ({state.phase}).")
    for process, _ in answers:
        if process.last_exit:
            console.print(f"\n[yellow]{process.name} {process.last_exit}[/yellow] (restarts: {process.restarts})")
            console.print(*process.last_lines, sep="\n", style="dim", markup=False, highlight=False, soft_wrap=True)
    if not answers or not all(answer.ready for _, answer in answers):
        raise typer.Exit(1)


@app.command()
def logs(
    process: Annotated[
        str | None, typer.Argument(help="One process: postgres, kafka, mail, or a service. Default: all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print the logs of the processes."""
    files = [Home(home).log(process)] if process else sorted(Home(home).path.glob("logs/*.log"))
    if missing := [file for file in files if not file.exists()]:
        raise typer.BadParameter(f"{missing[0]} does not exist")
    with contextlib.suppress(KeyboardInterrupt):
        for file, line in _lines(files, follow):
            typer.echo(line if process else f"{file.stem:<12} {line}")


@app.command()
def token(
    scope: Annotated[list[str], typer.Option(help="A scope, such as billing:read. Repeatable.")],
    agency: Annotated[
        str, typer.Option(help="The agency that the token acts for, or '*' for all agencies, as a program officer.")
    ],
    subject: Annotated[str, typer.Option(help="The actor that the audit trail records.")] = "operator",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print a bearer token from the sandbox's issuer, valid for one day."""
    if unknown := sorted(set(scope) - set(SCOPES)):
        raise typer.BadParameter(f"--scope {unknown[0]}: must be one of {', '.join(SCOPES)}")
    if not is_agency_or_all(agency):
        raise typer.BadParameter(f"--agency {agency}: must be an agency's ID, such as NASA, or '*' for all agencies")
    typer.echo(Stack(home).token(*scope, agency=agency, subject=subject))


@app.command()
def address(
    process: Annotated[
        str, typer.Argument(help="postgres (as superuser, with its password), kafka, mail, or a service.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print the address of a process."""
    stack = Stack.running(home)
    if stack is None:
        raise typer.BadParameter(f"no stack is running in {home}; start one with: muster up --home {home}")
    known = {name: each.address for name, each in stack.state().processes.items()}
    known |= {"postgres": stack.admin_dsn, "kafka": stack.bootstrap}
    if process not in known:
        raise typer.BadParameter(f"{process}: must be one of {', '.join(known)}")
    typer.echo(known[process])


async def _start(home: Path, ports: dict[str, int], maintained: list[str]) -> Stack:
    with console.status("Starting") as spinner:

        def tell(step: str) -> None:
            console.print(f"[dim]{step}[/dim]")
            spinner.update(step)

        return await Stack.start(home, progress=tell, detached=True, ports=ports, maintained=maintained)


def _ports(given: list[str]) -> dict[str, int]:
    ports = {}
    for each in given:
        name, _, number = each.partition("=")
        if not (name and number.isdecimal() and 0 < int(number) < 65_536):
            raise typer.BadParameter(f"--port {each}: must be NAME=NUMBER with a number from 1 to 65535")
        ports[name] = int(number)
    return ports


def _addresses(stack: Stack) -> Table:
    table = Table("process", "address", title="Muster is up", box=box.SIMPLE)
    for process in stack.state().processes.values():
        table.add_row(process.name, process.address if process.address.startswith("http") else _shown(process.address))
    table.add_row("e-mails", str(stack.mail_dir))
    return table


async def _ask_all(processes: list[ProcessState]) -> list[tuple[ProcessState, Readiness]]:
    answers = await asyncio.gather(*(readiness.ask(process.name, process.address) for process in processes))
    return list(zip(processes, answers, strict=True))


def _ready(answer: Readiness) -> str:
    if not answer.ready:
        return f"[red]no:[/red] {escape('; '.join(answer.reasons))}"
    if answer.warnings:
        return f"[yellow]yes, but:[/yellow] {escape('; '.join(answer.warnings))}"
    return "[green]yes[/green]"


def _shown(address: str) -> str:
    """An address without user, password and database."""
    return urlsplit(address).netloc.rpartition("@")[2] if "://" in address else address


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _lines(files: list[Path], follow: bool) -> Iterator[tuple[Path, str]]:
    """The lines of the files so far, each with its file; with `follow`, then new ones forever."""
    with contextlib.ExitStack() as stack:
        opened = [(file, stack.enter_context(file.open(encoding="utf-8", errors="replace"))) for file in files]
        while True:
            for file, text in opened:
                for line in text:
                    yield file, line.rstrip("\n")
            if not follow:
                return
            time.sleep(_FOLLOW_SECONDS)


def main() -> None:
    """The console script."""
    # This command reports servers that are not up yet; aiokafka must not log them.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app()
    except HomeRefused as refused:
        typer.echo(str(refused), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
