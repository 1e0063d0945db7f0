"""`muster demo`: starts a stack, plays the year, proves the books, and sets the exit status."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from muster_contracts import SERVICES
from muster_local.coordinator import ClockStuck
from muster_local.demo import log
from muster_local.demo.cast import Agency, cast
from muster_local.demo.evidence import Evidence
from muster_local.demo.program import Unexpected
from muster_local.demo.proof import Line, prove
from muster_local.demo.view import View
from muster_local.demo.year import play_year
from muster_local.home import Home
from muster_local.receiver import Receiver
from muster_local.stack import Stack, StackFailed
from muster_operator.failures import BadInput, CommandFailed, TimedOut
from muster_operator.options import DEFAULT_HOME, HOME_VARIABLE
from muster_runtime.exit_statuses import FAILED


def demo(
    seats: Annotated[int, typer.Option(help="Total seats, split between agencies by headcount.")] = 10_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and print the addresses.")] = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="Use a stack with TLS, passwords, ACLs, and an identity provider.")
    ] = False,
    home: Annotated[
        Path | None, typer.Option(help="The stack's folder. Default: a temporary one, or .muster with --keep.")
    ] = None,
) -> None:
    """Run the program's first year on a new stack, and prove that its books balance."""
    console = Console()
    try:
        agencies = cast(seats)
    except ValueError as error:
        raise BadInput(str(error)) from None
    temporary = home is None and not keep
    kept = Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)
    folder = Home(home or (kept if keep else Path(tempfile.mkdtemp(prefix="muster-demo-")))).path
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"the demo needs a new home, but {folder} is not empty: choose another folder with --home")
    try:
        lines = asyncio.run(_play(agencies, folder, console, keep=keep, secure=secure))
    except KeyboardInterrupt:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)
        console.print("Stopped." if keep else "Stopped; nothing is left running.")
        raise typer.Exit(130) from None
    except ClockStuck as stuck:
        raise TimedOut(f"{stuck}; {_logs(folder)}") from None
    except (StackFailed, Unexpected) as error:
        raise CommandFailed(f"{error}; {_logs(folder)}") from None
    if not all(line.ok for line in lines):
        console.print(f"The proof failed; {_logs(folder)}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED)
    if temporary:
        shutil.rmtree(folder, ignore_errors=True)


def _logs(home: Path) -> str:
    return f"the logs are in {home / 'logs'}"


async def _play(
    agencies: Sequence[Agency], home: Path, console: Console, *, keep: bool, secure: bool
) -> Sequence[Line]:
    seats = sum(agency.seats for agency in agencies)
    with View(console) as view:
        view.note(f"The program's first year with {seats:,} seats. The agencies are real; the story is invented.")
        stack = await Stack.start(home, progress=view.note, detached=keep, secure=secure)
        try:
            receiver = await Receiver.start(home / "receiver", stack.pids()["mail"] if keep else os.getpid())
            try:
                evidence = await _year(stack, receiver, agencies, view)
                view.note(f"The year is over; the clock stopped at {len(evidence.instants)} instants. Now the proof.")
                lines = prove(evidence)
            finally:
                if not keep:
                    await receiver.stop()
            memory = _memory(stack)
        finally:
            if not keep:
                await stack.stop()
        view.note(f"Peak memory: {memory}")
    console.print(_table(lines))
    if keep:
        addresses = {service: stack.service_url(service) for service in SERVICES}
        addresses |= {"postgres": stack.admin_dsn, "kafka": stack.bootstrap, "mail": str(stack.mail_dir)}
        for name, address in addresses.items():
            console.print(f"{name:13} {address}", highlight=False, soft_wrap=True)
        console.print(
            f"Everything is still running. Stop it with: muster down --home {home}", highlight=False, soft_wrap=True
        )
    return lines


async def _year(stack: Stack, receiver: Receiver, agencies: Sequence[Agency], view: View) -> Evidence:
    following = asyncio.create_task(log.follow(stack.kafka, stack.topic_prefix, view.fact))
    try:
        return await play_year(stack, receiver, agencies, view.instant, view.scene)
    finally:
        following.cancel()
        await asyncio.wait([following])


def _memory(stack: Stack) -> str:
    """The peak memory of each service's process."""
    return ", ".join(f"{name} {_peak_megabytes(pid)} MB" for name, pid in stack.pids().items() if name in SERVICES)


def _peak_megabytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def _table(lines: Sequence[Line]) -> Table:
    table = Table("", "Claim", "Found", title_justify="left", expand=False)
    for line in lines:
        table.add_row("[green]✓[/green]" if line.ok else "[red]✗[/red]", line.claim, line.detail)
    return table
