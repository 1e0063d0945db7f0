"""A file's rows are read in slices of time: others go on between them."""

from muster_entitlements.domain.people import Directory
from muster_entitlements.domain.seat_file import Columns
from muster_entitlements.handlers.imports import _read
from tests.support.turns import counted_turns

ROWS = 50_000

# Reading them takes many times as long.
LEAST_TURNS = 10


async def test_others_go_on_while_a_files_rows_are_read() -> None:
    rows = [(line, [f"person.{line}@nasa.gov", "A Person"]) for line in range(ROWS)]
    columns = Columns(count=2, key=0, to=None, name=1)
    async with counted_turns() as turns:
        lines, people = await _read(rows, "NASA", columns, Directory("a key of the test's own"))
    assert len(lines) == len(people) == ROWS
    assert turns() > LEAST_TURNS
