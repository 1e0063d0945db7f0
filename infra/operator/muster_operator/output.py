"""The output of a command: human-readable text, or JSON."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table

from muster_runtime.console import console
from muster_runtime.exit_statuses import FAILED


@dataclass(frozen=True)
class Answer:
    """The result of a command. Unless `ok`, the exit status is 1."""

    data: Any  # what --json prints
    text: RenderableType
    ok: bool = True

    def and_then(self, other: "Answer") -> "Answer":
        """Combine this answer with another one; the data of both are objects."""
        return Answer({**self.data, **other.data}, Group(self.text, other.text), ok=self.ok and other.ok)


def table(columns: Iterable[str | Column], rows: Iterable[Iterable[str]], *, lines: bool = False) -> Table:
    """A table; `lines` draws lines between rows, for multi-line cells."""
    shown = Table(*columns, show_lines=True) if lines else Table(*columns, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    return shown


def facts(reply: Mapping[str, Any]) -> Table:
    """The nonempty fields of a reply, one per line."""
    shown = table(("", ""), [(name.replace("_", " "), escape(_text(value))) for name, value in reply.items() if value])
    shown.show_header = False
    return shown


def in_utc(instant: datetime) -> str:
    """An instant in RFC 3339, in UTC with a Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer; exit with status 1 unless it is ok."""
    if as_json:
        typer.echo(json.dumps(answer.data, indent=2, default=str))
    else:
        console().print(answer.text)
    if not answer.ok:
        raise typer.Exit(FAILED)


def finish(work: Coroutine[Any, Any, Answer], *, as_json: bool) -> None:
    """Run a command's coroutine and print its answer."""
    show(asyncio.run(work), as_json=as_json)
