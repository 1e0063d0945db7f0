"""`muster audit export`: writes an agency's rows of a period, with the seals that cover them, as CSV or JSON.

It exports every row of those seals, so that an outsider can recompute their hashes: docs/audit.md has a script.
"""

import csv
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from muster_contracts.audit import COLUMNS, canonical_instant
from muster_operator.audit.trail import Row, Trail
from muster_operator.clients import client_of_postgres
from muster_operator.failures import BadInput, NotFound
from muster_operator.private import open_private

_SEAL_COLUMNS = (
    "service",
    "agency_id",
    "number",
    "first_id",
    "last_id",
    "count",
    "sha256",
    "previous_sha256",
    "sealed_at",
)

# A spreadsheet treats a cell that starts with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Exported:
    """The result of an export: files, counts of seals and rows, and the period's rows that were not sealed."""

    files: tuple[Path, ...]
    seals: int
    rows: int
    unsealed: int


# Writes a seal with its rows.
_Write = Callable[[Row, list[Row]], None]


async def export(
    admin_dsn: str,
    service: str,
    agency_id: str,
    start: datetime,
    end: datetime,
    out: Path,
    form: Literal["csv", "json"],
) -> Exported:
    """Export what was recorded from `start` until before `end`. Raises BadInput for an existing file, and NotFound."""
    files = (out, out.with_name(f"{out.name}.seals.csv")) if form == "csv" else (out,)
    async with Trail.open(admin_dsn, service) as trail:
        covering = await trail.covering(agency_id, start, end)
        unsealed = await trail.unsealed_between(agency_id, start, end)
        if covering is None and not unsealed:
            raise NotFound(f"{service} has no audit rows of {agency_id!r} in the period")
        seals = rows = 0
        with (
            _new_files(files) as opened,
            _csv(*opened) if form == "csv" else _json(opened[0], service, agency_id, start, end) as write,
        ):
            async for seal, covered in _sealed(trail, service, agency_id, covering):
                write(seal, covered)
                seals, rows = seals + 1, rows + len(covered)
    return Exported(files, seals, rows, unsealed)


@contextmanager
def _new_files(files: Sequence[Path]) -> Iterator[list[TextIO]]:
    """Files to write. They never look complete too early: empty until the block ends, and removed if it fails.

    Raises BadInput for a file that exists or cannot be written.
    """
    partial = {file: file.with_name(f"{file.name}.partial") for file in files}
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            opened: list[TextIO] = []
            for path in (*files, *partial.values()):
                # It records people's actions, so only its owner may read it. newline: the CSV writer ends lines itself.
                opened.append(stack.enter_context(open(path, "x", encoding="utf-8", newline="", opener=open_private)))
                made.append(path)
            yield opened[len(files) :]
        for file, written in partial.items():
            written.replace(file)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BadInput(f"--out {error.filename or files[0]}: {error.strerror}") from None
        raise


async def _sealed(
    trail: Trail, service: str, agency_id: str, covering: tuple[int, int] | None
) -> AsyncIterator[tuple[Row, list[Row]]]:
    """Each seal with the rows that it covers."""
    if covering is None:
        return
    async with client_of_postgres():  # otherwise, a lost connection would look like an error of the file
        async for seal in trail.seals(agency_id, *covering):
            rows = [row async for row in trail.rows(agency_id, seal["first_id"] - 1, seal["last_id"])]
            yield {**seal, "service": service}, rows


@contextmanager
def _csv(rows_file: TextIO, seals_file: TextIO) -> Iterator[_Write]:
    """Write rows, each with its seal's number, to one file, and seals to another."""
    rows, seals = csv.writer(rows_file), csv.writer(seals_file)
    rows.writerow(("seal", *COLUMNS))
    seals.writerow(_SEAL_COLUMNS)

    def write(seal: Row, covered: list[Row]) -> None:
        seals.writerow(_cells(seal[name] for name in _SEAL_COLUMNS))
        rows.writerows(_cells((seal["number"], *(row[name] for name in COLUMNS))) for row in covered)

    yield write


def _cells(values: Iterable[Any]) -> list[Any]:
    return [cell(value) for value in values]


def cell(value: Any) -> Any:
    """A value as a cell; null is an empty cell.

    Text that is empty, or starts with an apostrophe or like a formula, gets an apostrophe in front.
    """
    if isinstance(value, datetime):
        return canonical_instant(value)
    if isinstance(value, str) and (not value or value.startswith(("'", *_FORMULA))):
        return f"'{value}"
    return value


@contextmanager
def _json(out: TextIO, service: str, agency_id: str, start: datetime, end: datetime) -> Iterator[_Write]:
    """Write one JSON object with the seals, each with its rows."""
    head = {"service": service, "agency_id": agency_id, "from": canonical_instant(start), "to": canonical_instant(end)}
    out.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "seals": [')
    separator = "\n"

    def write(seal: Row, covered: list[Row]) -> None:
        nonlocal separator
        rows = [{name: _plain(row[name]) for name in COLUMNS} for row in covered]
        written = {name: _plain(seal[name]) for name in _SEAL_COLUMNS} | {"rows": rows}
        out.write(separator + json.dumps(written, ensure_ascii=False))
        separator = ",\n"

    yield write
    out.write("\n]}\n")


def _plain(value: Any) -> Any:
    return canonical_instant(value) if isinstance(value, datetime) else value
