"""The register file: CSV or tab-separated text that lists agencies, imported completely or not at all."""

import csv
import io
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from muster_contracts import AgencyId
from muster_enrollment.domain.facts import Agency, Branch
from muster_enrollment.errors import MOST_FAULTS, Fault, RegisterRefused
from muster_runtime.plain_rules import plain_rule
from muster_runtime.text import composed

COLUMNS = ("id", "name", "parent", "treasury_code", "domains", "headcount", "branch")


@dataclass(frozen=True, slots=True)
class Entry:
    """An agency and its line in the file."""

    line: int
    agency: Agency


def _split_domains(cell: str) -> list[str]:
    """A cell's domains, each once, sorted, in lower case."""
    parts = (part.strip().lower() for part in cell.replace(";", ",").split(","))
    return sorted({part for part in parts if part})


_Domain = Annotated[str, Field(max_length=253, pattern=r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:gov|mil)$")]


class _Row(BaseModel):
    """The rules of a row. An empty cell counts as missing."""

    model_config = ConfigDict(extra="ignore")

    id: AgencyId
    # No control characters, line separators, and the like: the name appears in the subjects of e-mails and in tables.
    name: Annotated[str, AfterValidator(composed), Field(max_length=200, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")]
    parent: AgencyId | None = None
    treasury_code: Annotated[str, Field(pattern=r"^[0-9]{3,4}$")] | None = None
    domains: Annotated[tuple[_Domain, ...], BeforeValidator(_split_domains)] = ()
    headcount: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    branch: Branch


def parse_register(content: bytes, delimiter: str) -> tuple[Entry, ...]:
    """The agencies in a register file, in its order.

    Raises RegisterRefused with the faults that the file alone shows: in its format (UTF-8, a header with each of
    COLUMNS; other columns are ignored), in a value, or an ID or a domain that appears twice.
    """
    entries: list[Entry] = []
    faults: list[Fault] = []
    for line, row in _rows(content, delimiter):
        if len(faults) >= MOST_FAULTS:  # it may not be a register at all
            raise RegisterRefused(faults)
        if isinstance(row, Fault):
            faults.append(row)
            continue
        try:
            entries.append(Entry(line, Agency(**_Row.model_validate(row).model_dump())))
        except ValidationError as error:
            faults += [
                Fault(line, str(fault["loc"][0]), str(row.get(str(fault["loc"][0]), "")), plain_rule(fault))
                for fault in error.errors()
            ]
    faults += _repeated(entries, "id", lambda agency: (agency.id,))
    faults += _repeated(entries, "domains", lambda agency: agency.domains)
    if not entries and not faults:
        faults.append(Fault(1, "file", "", "must list at least one agency"))
    if faults:
        raise RegisterRefused(faults)
    return tuple(entries)


def check_against(register: Mapping[str, Agency], entries: Sequence[Entry]) -> None:
    """Check a file against the register that it changes.

    Raises RegisterRefused for a parent in neither, a cycle of parents, or a domain of an agency that is not in the
    file.
    """
    stated = {entry.agency.id: entry.agency for entry in entries}
    after = {**register, **stated}
    held = {domain: agency.id for agency in after.values() if agency.id not in stated for domain in agency.domains}
    circular = _in_circles(after)
    faults: list[Fault] = []
    for entry in entries:
        agency = entry.agency
        if agency.parent and agency.parent not in after:
            faults.append(Fault(entry.line, "parent", agency.parent, "must be in the file or in the register"))
        if agency.parent and agency.id in circular:
            faults.append(
                Fault(entry.line, "parent", agency.parent, "must not be one of the agency's own sub-agencies")
            )
        faults += [
            Fault(entry.line, "domains", domain, f"already belongs to {held[domain]}")
            for domain in agency.domains
            if domain in held
        ]
    if faults:
        raise RegisterRefused(faults)


def check_branches(entries: Iterable[Entry], enrolled: Collection[str]) -> None:
    """Raise RegisterRefused if an agency with a live enrollment, one of `enrolled`, is not in the executive branch."""
    rule = "an agency with a live enrollment must be of the executive branch"
    faults = [
        Fault(entry.line, "branch", entry.agency.branch, rule)
        for entry in entries
        if entry.agency.id in enrolled and entry.agency.branch is not Branch.EXECUTIVE
    ]
    if faults:
        raise RegisterRefused(faults)


def _rows(content: bytes, delimiter: str) -> Iterator[tuple[int, dict[str, str] | Fault]]:
    """Each row's first line, with its cells by column, or what is wrong with the row's format."""
    records = _records(_decode(content), delimiter)
    _, names = next(records, (1, []))
    header = [name.strip().lower() for name in names]
    if missing := [
        Fault(1, column, ",".join(header), "must appear in the header exactly once")
        for column in COLUMNS
        if header.count(column) != 1
    ]:
        raise RegisterRefused(missing)
    for line, cells in records:
        if len(cells) == len(header):
            yield line, {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
        else:
            yield line, Fault(line, "row", delimiter.join(cells), f"must have {len(header)} cells, like the header")


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        value = content[error.start : error.end].hex(" ")
        raise RegisterRefused([Fault(line, "file", value, "must be UTF-8")]) from None


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line and its cells; empty lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise RegisterRefused([Fault(line, "row", "", f"must be valid CSV: {error}")]) from None


def _repeated(entries: Iterable[Entry], field: str, values: Callable[[Agency], Iterable[str]]) -> list[Fault]:
    first: dict[str, int] = {}
    return [
        Fault(entry.line, field, value, f"already appears on line {first[value]}")
        for entry in entries
        for value in values(entry.agency)
        if first.setdefault(value, entry.line) != entry.line
    ]


def _in_circles(register: Mapping[str, Agency]) -> set[str]:
    """The agencies that are their own ancestors. Each is visited once, however long the chain above it is."""
    circular: set[str] = set()
    settled: set[str] = set()
    for id_ in register:
        chain: dict[str, None] = {}  # from the agency upward, in order
        above: str | None = id_
        while above and above in register and above not in settled and above not in chain:
            chain[above] = None
            above = register[above].parent
        if above in chain:
            circular.update(dropwhile(partial(operator.ne, above), chain))
        settled.update(chain)
    return circular
