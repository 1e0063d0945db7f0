"""Collects what a transaction writes at its end, in one statement and one round trip to Postgres."""

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from muster_runtime.database.connections import Connection

# A statement as a common table expression, `name as (insert ...)`, and its arguments. No name occurs twice in one
# transaction.
Write = tuple[str, Sequence[object]]

_PARAMETER = re.compile(r"\$(\d+)")

_NOTIFY = "select pg_notify('muster_wake', current_schema())"


@dataclass(slots=True)
class Writes:
    """Writes that wait for the end of their transaction: statements, and rows by the statement that writes them.

    Each statement sees the tables as they were before all of them, so no two may write the same row.
    """

    _writes: list[Write] = field(default_factory=list)
    _rows: dict[str, dict[Hashable, Sequence[object]]] = field(default_factory=dict)

    def add(self, *writes: Write) -> None:
        """Add statements to execute at the end."""
        self._writes += writes

    def add_row(self, statement: str, *row: object, key: Hashable = None) -> None:
        """Add a row to write at the end. Of several rows with the same key, the last is written.

        The statement's parameters are arrays, one for each column.
        """
        rows = self._rows.setdefault(statement, {})
        rows[len(rows) if key is None else key] = row

    def take(self) -> list[Write]:
        """Take all statements out."""
        writes = [
            *self._writes,
            *(
                (statement, [list(column) for column in zip(*rows.values(), strict=True)])
                for statement, rows in self._rows.items()
            ),
        ]
        self._writes.clear()
        self._rows.clear()
        return writes


async def execute(connection: Connection, *writes: Write) -> None:
    """Execute statements now, in one round trip."""
    await _execute(connection, writes, "select 1")


async def send(connection: Connection, writes: Sequence[Write], events: Iterator[Write], *, wake: bool) -> None:
    """Write everything in one round trip, plus one for each further part of the events.

    NOTIFY takes a cluster-wide lock at commit. Postgres merges equal notifications, so a transaction makes only one.
    """
    first = next(events, None)
    if first is not None:
        writes, wake = [*writes, first], True
    if writes or wake:
        await _execute(connection, writes, _NOTIFY if wake else "select 1")
    for part in events:
        await execute(connection, part)


async def _execute(connection: Connection, writes: Sequence[Write], then: str) -> None:
    expressions: list[str] = []
    arguments: list[object] = []
    for statement, own in writes:
        expressions.append(_renumbered(statement, len(arguments)))
        arguments += own
    prefix = f"with {', '.join(expressions)}\n" if expressions else ""
    await connection.execute(prefix + then, *arguments)


def _renumbered(statement: str, before: int) -> str:
    """The statement with its parameter numbers shifted past those of the statements before it."""
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + before}", statement)
