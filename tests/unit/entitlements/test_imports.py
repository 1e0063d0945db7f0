"""A file's rows are read in slices of time: others go on between them."""

import asyncio

from muster_entitlements.handlers.imports import _read
from muster_entitlements.people import Directory
from muster_entitlements.seat_file import Columns

ROWS = 50_000

# Reading them takes many times as long.
LEAST_TURNS = 10


async def test_others_go_on_while_a_files_rows_are_read() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    rows = [(line, [f"person.{line}@nasa.gov", "A Person"]) for line in range(ROWS)]
    columns = Columns(count=2, key=0, to=None, name=1)
    lines, people = await _read(rows, "NASA", columns, Directory("a key of the test's own"))
    task.cancel()
    assert len(lines) == len(people) == ROWS
    assert turns > LEAST_TURNS
