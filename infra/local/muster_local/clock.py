"""The commands that show and advance the sandbox's clock."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from muster_local.coordinator import ClockStuck, Coordinator, shown
from muster_local.stack import DEFAULT_HOME, Stack
from muster_runtime.clock import SystemClock

app = typer.Typer(help="Show or advance the sandbox's clock.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="The folder of the stack.")]


@app.command()
def show(home: Home = DEFAULT_HOME) -> None:
    """Show each process's time and its next deadline."""
    asyncio.run(_show(home))


async def _show(home: Path) -> None:
    async with Coordinator.of(_running(home)) as coordinator:
        sweep = await coordinator.sweep()
        table = Table("service", "now", "next due", "quiet")
        for service, state in sweep.items():
            if isinstance(state, str):
                table.add_row(service, "–", "–", state)
            else:
                due = shown(state.next_due) if state.next_due else "nothing"
                table.add_row(service, shown(state.now), due, state.unrest(coordinator.now or state.now) or "yes")
        Console().print(table)


@app.command()
def advance(
    to: Annotated[str | None, typer.Option("--to", help="An instant, such as 2025-10-05T00:00:00Z.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="A duration, such as 90s, 12h, 30d, or 2w.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Advance the clock through every instant at which something is due."""
    if (to is None) == (by is None):
        raise typer.BadParameter("give either --to or --by")
    asyncio.run(_advance(home, parse_instant(to) if to is not None else None, parse_duration(by or "0s")))


async def _advance(home: Path, to: datetime | None, by: timedelta) -> None:
    console = Console()

    async def tell(instant: datetime) -> None:
        console.print(shown(instant))

    async with Coordinator.of(_running(home)) as coordinator:
        try:
            await coordinator.advance(to or (coordinator.now or SystemClock().now()) + by, tell)
        except (ClockStuck, ValueError) as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from None


def _running(home: Path) -> Stack:
    stack = Stack.running(home)
    if stack is None:
        raise typer.BadParameter(f"no stack is running in {home}; start one with: muster up --home {home}")
    return stack


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> timedelta:
    """A duration such as 90s, 12h, 30d, or 2w."""
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if not match:
        raise typer.BadParameter(f"{text!r}: must be a whole number followed by s, m, h, d, or w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_instant(text: str) -> datetime:
    """An instant in RFC 3339 with its offset."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: must be an instant such as 2025-10-05T00:00:00Z") from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text!r}: must have an offset; append Z for UTC")
    return instant.astimezone(UTC)
