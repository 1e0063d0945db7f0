"""Seat files: split into whole rows as they arrive, read leniently, and refused if they cannot be read."""

import csv
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain import seat_file
from muster_entitlements.domain.seat_file import (
    CHUNK_BYTES,
    CHUNK_LINES,
    MOST_COLUMNS,
    Chunk,
    Columns,
    FileCutter,
    read_rows,
)
from muster_runtime.errors import InvalidInput

ROWS = [(2, "ada@nasa.gov", "Ada"), (3, "bob@nasa.gov", "Bob")]


def cut(body: bytes, kind: SeatBatchKind = SeatBatchKind.IMPORT, pieces: int = 1) -> tuple[Columns, list[Chunk]]:
    cutter = FileCutter(kind)
    size = -(-len(body) // pieces) or 1
    chunks = [chunk for at in range(0, len(body), size) for chunk in cutter.feed(body[at : at + size])]
    chunks += cutter.end()
    assert cutter.columns is not None
    return cutter.columns, chunks


def read(body: bytes, pieces: int = 1) -> list[tuple[int, str | None, str | None]]:
    columns, chunks = cut(body, pieces=pieces)
    rows = [row for chunk in chunks for row in read_rows(chunk.content, columns, chunk.first_line)]
    return [
        (
            line,
            fields[columns.key] if fields else None,
            fields[columns.name] if fields and columns.name is not None else None,
        )
        for line, fields in rows
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"email,name\nada@nasa.gov,Ada\nbob@nasa.gov,Bob\n",
        b"\xef\xbb\xbfemail,name\r\nada@nasa.gov,Ada\r\nbob@nasa.gov,Bob",
        b"E-Mail Address,Full Name\nada@nasa.gov,Ada\nbob@nasa.gov,Bob\n",
        b'"name","e-mail"\nAda,ada@nasa.gov\nBob,bob@nasa.gov\n',
        b"id,EMAIL, Name \n1,ada@nasa.gov,Ada\n2,bob@nasa.gov,Bob\n\n ,,\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_files_are_read_leniently_however_they_arrive(body: bytes, pieces: int) -> None:
    assert read(body, pieces) == ROWS


def test_a_quoted_line_break_is_part_of_its_row() -> None:
    body = b'email,name\r\nada@nasa.gov,"Ada\r\nKing"\r\nbob@nasa.gov,Bob\r\n'
    assert read(body) == [(2, "ada@nasa.gov", "Ada\r\nKing"), (4, "bob@nasa.gov", "Bob")]


def test_names_may_be_omitted() -> None:
    assert read(b"\n\nemail\nada@nasa.gov\n") == [(4, "ada@nasa.gov", None)]


def test_a_header_alone_is_a_file_without_rows() -> None:
    assert read(b"email\n") == []


def test_a_row_with_missing_fields_is_kept_to_be_refused() -> None:
    assert read(b"email,name\nada@nasa.gov\nbob@nasa.gov,Bob\n") == [(2, None, None), ROWS[1]]


def test_a_row_that_is_not_csv_is_kept_to_be_refused() -> None:
    assert read(b'email,name\n"ada"x,"Ada"\nbob@nasa.gov,Bob\n') == [(2, None, None), ROWS[1]]


@pytest.mark.parametrize(
    ("kind", "header", "columns"),
    [
        (SeatBatchKind.IMPORT, b"Unit,Name,E-Mail", Columns(3, 2, None, 1, 0)),
        (SeatBatchKind.IMPORT, b"email,Business Unit", Columns(2, 0, None, None)),
        (SeatBatchKind.SUSPENSION, b"Subject", Columns(1, 0, None, None)),
        (SeatBatchKind.SUSPENSION, b"email,unit", Columns(2, 0, None, None)),
        (SeatBatchKind.REVOCATION, b"id,e-mail", Columns(2, 1, None, None)),
        (SeatBatchKind.TRANSFER, b"from,to,name", Columns(3, 0, 1, 2)),
        (SeatBatchKind.TRANSFER, b"New E-Mail,E-Mail", Columns(2, 1, 0, None)),
    ],
)
def test_each_kind_of_file_has_its_own_columns(kind: SeatBatchKind, header: bytes, columns: Columns) -> None:
    assert cut(header + b"\n", kind)[0] == columns


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "header line"),
        (b"\xef\xbb\xbf \r\n", "header line"),
        (b"email\nada\xff@nasa.gov\n", "UTF-8"),
        ("email\nada@nasa.gov\n".encode("utf-16"), "UTF-8"),
        (b"name,phone\nAda,1\n", "column named email"),
        (b"email,e-mail\na@nasa.gov,b@nasa.gov\n", "column named email"),
        (b"email,unit,Unit 2\na@nasa.gov,JPL,Ames\n", "column named unit, or none"),
        (b'email\n"ada@nasa.gov\nbob@nasa.gov\n', "line 2'.*quote is not closed"),
        (b"email\n" + b"a@nasa.gov\n" * 10 + b'"' + b"a@nasa.gov\n" * 100_000, "line 12'.*unclosed quote"),
        (b"email\n" + b"a" * 10_000_000, "must end within"),
        (b'"' * 10_000_000, "must end within"),
        (b'"\n' * 4_999_999, "quote"),
        (b"email\n" + b"a\n" * 5_000_000, "within the first 5,000,000 lines"),
        (b'email\nada\n"' + b"\n" * 5_000 + b'"\n', "line 3'.*must end within 5,000 lines"),
        (b'email\na"\n' + b"b\n" * 100_000 + b'c"\n', "line 2'.*must end within 5,000 lines"),  # rows to a CSV reader
        (b"email" + b"," * 500 + b"\n", "501 columns'.*at most 500 columns"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_as_a_whole(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        cut(body, pieces=50)


def test_a_line_without_an_end_is_refused_before_it_fills_memory() -> None:
    cutter = FileCutter(SeatBatchKind.IMPORT)
    piece = b"a" * (CHUNK_BYTES // 4)
    for _ in range(3):
        assert list(cutter.feed(piece)) == []
    with pytest.raises(InvalidInput, match="must end within"):
        list(cutter.feed(piece))


def test_a_long_file_is_cut_into_whole_rows() -> None:
    chance = random.Random(1)
    rows = [f'person.{n}@nasa.gov,"A\n{"b" * chance.randrange(200)}"' for n in range(20_000)]
    columns, chunks = cut("\n".join(["email,name", *rows]).encode(), pieces=997)
    assert len(chunks) > 5
    assert all(len(chunk.content) <= CHUNK_BYTES for chunk in chunks)
    lines = [line for chunk in chunks for line, _ in read_rows(chunk.content, columns, chunk.first_line)]
    assert lines == [2 + 2 * n for n in range(20_000)]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("row", [b"a", b""])
def test_a_chunk_has_a_bounded_number_of_lines_however_short_they_are(row: bytes, ending: bytes) -> None:
    """Processing a row, and its result, take fifty times the bytes of the shortest row."""
    columns, chunks = cut(b"email" + ending + (row + ending) * 60_000 + b"z", pieces=3)
    assert len(chunks) >= 60_000 // CHUNK_LINES
    assert all(len(chunk.content.splitlines()) <= CHUNK_LINES for chunk in chunks)
    lines = [line for chunk in chunks for line, _ in read_rows(chunk.content, columns, chunk.first_line)]
    assert lines == (list(range(2, 60_003)) if row else [60_002])


def test_a_row_of_many_lines_stays_whole_if_a_chunk_has_no_room_for_it() -> None:
    rows = [f'{number},"A{line_breaks}"' for number, line_breaks in enumerate(["\n" * 1_500, "\r\n" * 1_500] * 20)]
    columns, chunks = cut("\n".join(["email,name", *rows]).encode(), pieces=7)
    assert all(len(chunk.content.splitlines()) <= CHUNK_LINES for chunk in chunks)
    found = [row for chunk in chunks for row in read_rows(chunk.content, columns, chunk.first_line)]
    assert [(line, fields and fields[0]) for line, fields in found] == [(2 + 1_501 * n, str(n)) for n in range(40)]


def test_a_file_has_as_many_columns_as_anyone_exports() -> None:
    assert cut(b"email" + b"," * (MOST_COLUMNS - 1) + b"\n")[0].count == MOST_COLUMNS


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@given(st.lists(st.tuples(texts.filter(str.strip), texts), max_size=20), st.integers(1, 30))
def test_what_a_csv_writer_writes_is_read_back_unchanged(rows: list[tuple[str, str]], pieces: int) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["email", "name"])
    writer.writerows(rows)
    assert [(email, name) for _, email, name in read(written.getvalue().encode(), pieces)] == rows


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r" * 1_000 + b"\n"])
def test_a_file_has_a_bounded_number_of_lines_however_they_end(ending: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of two bytes has a result of a hundred bytes."""
    lines = ending.count(b"\r") or 1
    monkeypatch.setattr(seat_file, "MOST_LINES", 1 + 400 * lines)
    cut(b"email\n" + (b"a" + ending) * 400)
    with pytest.raises(InvalidInput, match=f"must be within the first {1 + 400 * lines:,} lines; split the file"):
        cut(b"email\n" + (b"a" + ending) * 401)
