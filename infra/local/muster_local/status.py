"""`muster status`: which processes run, and whether each is ready."""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from muster_local import readiness
from muster_local.addresses import without_secrets
from muster_local.home import ProcessState
from muster_local.readiness import Readiness
from muster_local.stack import Stack
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption
from muster_operator.output import Answer, in_utc, show
from muster_runtime.clock import SystemClock
from muster_runtime.messaging.connection import KafkaConnection


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show whether each process is ready, and if not, why. The exit status is 1 unless all are ready."""
    stack = Stack(home)
    state = stack.state()
    answers = asyncio.run(_ask_all(list(state.processes.values()), stack.kafka if state.bootstrap else None))
    found = {"phase": state.phase, "processes": [_as_json(process, answer) for process, answer in answers]}
    shown = _table(answers) if answers else Text(f"Nothing is running in {stack.home} ({state.phase}).")
    ended = [line for process, answer in answers if process.last_exit for line in _last_words(process, answer)]
    parked = [_next_step(process.name) for process, answer in answers if answer.parked]
    ready = bool(answers) and all(answer.ready for _, answer in answers)
    show(Answer(found, Group(shown, *parked, *ended), ok=ready), as_json=as_json)


async def _ask_all(
    processes: list[ProcessState], kafka: KafkaConnection | None
) -> list[tuple[ProcessState, Readiness]]:
    answers = await asyncio.gather(*(readiness.ask(process.name, process.address, kafka) for process in processes))
    return list(zip(processes, answers, strict=True))


def _table(answers: list[tuple[ProcessState, Readiness]]) -> Table:
    address = Column("address", no_wrap=True)
    table = Table("process", "pid", address, "ready", "outbox", "oldest", "lag", "parked", box=None, pad_edge=False)
    for process, answer in answers:
        table.add_row(
            process.name,
            str(process.pid or "-"),
            without_secrets(process.address),
            _ready(process, answer),
            _number(answer.outbox_rows),
            "-" if answer.outbox_oldest_seconds is None else f"{answer.outbox_oldest_seconds:.1f} s",
            _number(answer.lag),
            _number(answer.parked),
        )
    return table


def _last_words(process: ProcessState, answer: Readiness) -> list[RenderableType]:
    """How a process last exited and how often it was restarted, with its last lines unless it is ready again."""
    ago = f", {_ago(SystemClock().now() - process.last_exit_at)}" if process.last_exit_at else ""
    restarted = f"{process.name} restarted {process.restarts}×" if process.restarts else f"{process.name} ended"
    ended = f"\n[yellow]{restarted}[/yellow] ({escape(process.last_exit)}{ago})"
    lines = () if answer.ready else process.last_lines
    return [ended, *(Text(line, style="dim", no_wrap=True, overflow="ignore") for line in lines)]


def _ago(passed: timedelta) -> str:
    """A past duration in its largest unit, such as `3 min ago`."""
    seconds = max(0, int(passed.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _next_step(service: str) -> str:
    return f"\n[yellow]{service} has parked records:[/yellow] muster parked list --service {service}"


def _as_json(process: ProcessState, answer: Readiness) -> dict[str, Any]:
    return {
        "process": process.name,
        "pid": process.pid,
        "address": without_secrets(process.address),
        "maintenance": process.maintenance,
        "restarts": process.restarts,
        "last_exit": process.last_exit or None,
        "last_exit_at": in_utc(process.last_exit_at) if process.last_exit_at else None,
        **asdict(answer),
    }


def _ready(process: ProcessState, answer: Readiness) -> str:
    if not answer.ready:
        return f"[red]no:[/red] {escape('; '.join(answer.reasons))}"
    yes = "yes, in maintenance" if process.maintenance else "yes"
    if answer.warnings:
        return f"[yellow]{yes}, but:[/yellow] {escape('; '.join(answer.warnings))}"
    return f"[yellow]{yes}[/yellow]" if process.maintenance else f"[green]{yes}[/green]"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
