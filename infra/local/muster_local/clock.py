"""The commands that show and advance the sandbox's clock."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from muster_local.coordinator import ClockStuck, Coordinator, shown
from muster_local.stack import Stack
from muster_operator.clients import client_of_kafka
from muster_operator.failures import BadInput, TimedOut
from muster_operator.group import group
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption
from muster_operator.output import Answer, finish, table
from muster_runtime.clock import SystemClock

app = group("Show or advance the sandbox's clock.")


@app.command()
def show(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show each process's time and its next deadline."""
    finish(_show(home), as_json=as_json)


async def _show(home: Path) -> Answer:
    async with _coordinator(home) as coordinator:
        sweep = await coordinator.sweep()
        items: list[dict[str, str | None]] = []
        for service, state in sweep.items():
            if isinstance(state, str):
                items.append({"service": service, "now": None, "next_due": None, "busy_with": state})
            else:
                due = shown(state.next_due) if state.next_due else None
                busy_with = state.busy_with(coordinator.now or state.now) or None
                items.append({"service": service, "now": shown(state.now), "next_due": due, "busy_with": busy_with})
    rows = [
        (str(item["service"]), item["now"] or "–", item["next_due"] or "nothing", item["busy_with"] or "yes")
        for item in items
    ]
    return Answer({"items": items}, table(("service", "now", "next due", "quiet"), rows))


@app.command()
def advance(
    to: Annotated[str | None, typer.Option("--to", help="An instant, such as 2025-10-05T00:00:00Z.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="A duration, such as 90s, 12h, 30d, or 2w.")] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Advance the clock, stopping at every instant when something is due, and print each instant.

    The clock then stays at the last instant, even across restarts, until you advance it again.
    """
    if to is None and by is None:
        raise BadInput("give either --to or --by")
    if to is not None and by is not None:
        raise BadInput("give --to or --by, not both")
    now = SystemClock().now()
    if by is not None and later(now, by) == now:
        raise BadInput(f"--by {by}: must be more than zero")
    instant = parse_instant(to) if to is not None else None
    asyncio.run(_advance(home, instant, by or "0s", as_json=as_json))


async def _advance(home: Path, to: datetime | None, by: str, *, as_json: bool) -> None:
    async def tell(instant: datetime) -> None:
        typer.echo(json.dumps({"instant": shown(instant)}) if as_json else shown(instant))

    async with _coordinator(home) as coordinator:
        try:
            await coordinator.advance(to or later(coordinator.now or SystemClock().now(), by), tell)
        except ClockStuck as stuck:
            raise TimedOut(str(stuck)) from None
        except ValueError as error:
            raise BadInput(str(error)) from None


@asynccontextmanager
async def _coordinator(home: Path) -> AsyncIterator[Coordinator]:
    """The clock of the home's stack. Raises NotFound if none runs, and Unreachable if Kafka cannot be reached."""
    stack = Stack.required(home)
    async with client_of_kafka(stack.kafka), Coordinator.of(stack) as coordinator:
        yield coordinator


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def later(instant: datetime, by: str) -> datetime:
    """The instant that is a duration such as 90s, 12h, 30d, or 2w later. Raises BadInput."""
    match = re.fullmatch(r"(\d+)([smhdw])", by.strip())
    if not match:
        raise BadInput(f"--by {by}: must be a whole number followed by s, m, h, d, or w")
    try:
        return instant + timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise BadInput(f"--by {by}: must lead to an instant before the year 10000") from None


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant, converted to UTC. Raises BadInput without an offset."""
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise BadInput(f"--to {text}: must have an offset; append Z for UTC")
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f"--to {text}: must be an instant such as 2025-10-05T00:00:00Z") from None
