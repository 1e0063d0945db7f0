"""Files of seats: CSV (RFC 4180) in UTF-8, whose header names a column of addresses and perhaps one of names."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from muster_runtime.errors import InvalidInput

MOST_ROWS = 10_000

# Header names are compared by their letters alone: "E-Mail Address" is emailaddress.
_EMAIL_HEADERS = frozenset({"email", "emailaddress", "mail"})
_NAME_HEADERS = frozenset({"name", "fullname", "displayname"})


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was written; `line` is where it begins. Without an `email` it is not a row of the header's shape."""

    line: int
    email: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class _Columns:
    count: int
    email: int
    name: int | None


def read_seat_file(body: bytes) -> list[Row]:
    """The rows of a file. Blank lines are passed over.

    Raises InvalidInput for a file that cannot be read as a whole: empty, not UTF-8, not CSV, without a column of
    addresses, or of more than MOST_ROWS rows.
    """
    rows: list[Row] = []
    for row in _read(_decode(body)):
        if len(rows) == MOST_ROWS:
            raise InvalidInput("body", f"more than {MOST_ROWS} rows", f"must have at most {MOST_ROWS} rows")
        rows.append(row)
    return rows


def _decode(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput("body", f"the byte at {error.start}", "must be UTF-8") from None
    if not text.strip():
        raise InvalidInput("body", "an empty file", "must have a header line")
    return text


def _read(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: _Columns | None = None
    line = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                if columns is None:
                    columns = _find_columns(fields)
                else:
                    yield _to_row(line, fields, columns)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInput("body", f"the row at line {line}", f"must be CSV (RFC 4180): {error}") from None


def _find_columns(header: list[str]) -> _Columns:
    names = [re.sub(r"[^a-z]", "", field.casefold()) for field in header]
    emails = [index for index, name in enumerate(names) if name in _EMAIL_HEADERS]
    if len(emails) != 1:
        raise InvalidInput("header", ",".join(header)[:200], "must have one column named email or e-mail address")
    return _Columns(
        count=len(header),
        email=emails[0],
        name=next((index for index, name in enumerate(names) if name in _NAME_HEADERS), None),
    )


def _to_row(line: int, fields: list[str], columns: _Columns) -> Row:
    if len(fields) != columns.count:
        return Row(line, None, None)
    return Row(line, fields[columns.email], None if columns.name is None else fields[columns.name])
