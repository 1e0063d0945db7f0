"""A file's rows are read in slices of time: other tasks run between them."""

from muster_entitlements.domain.people import Directory
from muster_entitlements.domain.seat_file import Columns
from muster_entitlements.handlers.imports import _read
from tests.support.turns import counted_turns

ROWS = 50_000

# Reading them takes many times as long.
LEAST_TURNS = 10


async def test_other_tasks_run_while_a_files_rows_are_read() -> None:
    rows = [(line, [f"person.{line}@nasa.gov", "A Person"]) for line in range(ROWS)]
    columns = Columns(count=2, key=0, to=None, name=1)
    async with counted_turns() as turns:
        lines, people = await _read(rows, "NASA", columns, Directory("a key of the test's own"))
    assert len(lines) == len(people) == ROWS
    assert turns() > LEAST_TURNS


async def test_a_row_with_a_bad_unit_is_refused_with_its_line_field_and_rule() -> None:
    columns = Columns(count=2, key=0, to=None, name=None, unit=1)
    rows = [(2, ["ada@nasa.gov", " JPL "]), (3, ["bob@nasa.gov", "bob@nasa.gov"]), (4, ["cid@nasa.gov", ""])]
    directory = Directory("a key of the test's own")
    lines, people = await _read(rows, "NASA", columns, directory)
    rule = "unit must be at most 80 characters without control characters and without @: it is published"
    assert [(line, reason) for line, _, reason in lines] == [(2, ""), (3, rule), (4, "")]
    assert list(people.values()) == [("ada@nasa.gov", None, "JPL"), ("cid@nasa.gov", None, None)]
