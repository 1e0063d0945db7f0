"""Seat files: CSV (RFC 4180) in UTF-8, with a header. A file is read as a stream, never into memory as a whole."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from muster_contracts.entitlements import SeatBatchKind
from muster_runtime.errors import InvalidInput

# The most lines of a file. Even a row of two bytes has a result of a hundred bytes, which is kept for 30 days.
MOST_LINES = 5_000_000

# The size of a chunk in bytes, some thousands of rows; also the limit for one row.
CHUNK_BYTES = 262_144

# The most lines of a chunk, and of one row: processing a row costs more than reading its bytes.
CHUNK_LINES = 5_000

MOST_COLUMNS = 500

# Header names are compared by their letters: "E-Mail Address" is emailaddress.
_EMAIL = frozenset({"email", "emailaddress", "mail"})
_SUBJECT = _EMAIL | {"subject", "subjectref"}
_FROM = _SUBJECT | {"from", "fromemail", "fromemailaddress"}
_TO = frozenset({"to", "toemail", "toemailaddress", "newemail", "newemailaddress"})
_NAME = frozenset({"name", "fullname", "displayname"})
_TO_NAME = _NAME | {"toname", "newname"}
_UNIT = frozenset({"unit"})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file. `key` is the person; in a transfer, `to` is the person who gets their seat.

    `name` is the name of the person who gets a seat, and `unit` is the unit of the seat.
    """

    count: int
    key: int
    to: int | None
    name: int | None
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole rows of a file. `first_line` is the line at which the first one begins; the header counts."""

    first_line: int
    content: bytes


class FileCutter:
    """Cuts a file that arrives in pieces into chunks of whole rows."""

    def __init__(self, kind: SeatBatchKind) -> None:
        self.columns: Columns | None = None
        self._kind = kind
        self._buffer = bytearray()
        self._line = 1
        self._offset = 0

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """Take the next piece; yields the chunks that it completes.

        Raises InvalidInput if the file cannot be read: no header, not UTF-8, a row that is too long, or too many lines
        or columns.
        """
        self._buffer += piece
        while len(self._buffer) >= CHUNK_BYTES:
            end = _last_row_end(self._buffer, CHUNK_BYTES)
            if end == 0:
                raise _too_long(self._line, f"{CHUNK_BYTES} bytes")
            yield from self._cut(end)

    def end(self) -> Iterator[Chunk]:
        """End the file; yields the last chunk. Raises InvalidInput as `feed` does, and for an unclosed quote."""
        if self._buffer.count(b'"') % 2:
            line = self._line + _count_lines(self._buffer[: _last_row_end(self._buffer, len(self._buffer))])
            raise InvalidInput("body", f"the row at line {line}", "must be CSV (RFC 4180): a quote is not closed")
        yield from self._cut(len(self._buffer))
        if self.columns is None:
            raise InvalidInput("body", "an empty file", "must have a header line")

    def _cut(self, end: int) -> Iterator[Chunk]:
        content = bytes(self._buffer[:end])
        del self._buffer[:end]
        text = self._decode(content)
        line, self._line = self._line, self._line + _count_lines(content)
        if self._line > MOST_LINES + 1:
            rule = f"must be within the first {MOST_LINES:,} lines; split the file"
            raise InvalidInput("body", "the end of the file", rule)
        self._offset += end
        if self.columns is None:
            text, header_lines = self._read_header(text)
            line, content = line + header_lines, text.encode()
        if content:
            yield from _split(content, line)

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig" if self._offset == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput("body", f"the byte at {self._offset + error.start}", "must be UTF-8") from None

    def _read_header(self, text: str) -> tuple[str, int]:
        """Find the columns; returns the text after the header, and the number of lines before that text."""
        stream = io.StringIO(text, newline="")
        reader = csv.reader(stream, strict=True)
        try:
            for fields in reader:
                if any(field.strip() for field in fields):
                    self.columns = _find_columns(fields, self._kind)
                    break
        except csv.Error as error:
            raise InvalidInput("header", text[:200], f"must be CSV (RFC 4180): {error}") from None
        return stream.read(), reader.line_num


def read_rows(content: bytes, columns: Columns, first_line: int) -> Iterator[tuple[int, list[str] | None]]:
    """The rows of a chunk, each with its first line; None for a row without as many columns as the header.

    Blank rows are skipped.
    """
    reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    count, key, line = columns.count, columns.key, first_line
    while True:
        try:
            for fields in reader:
                if len(fields) == count and fields[key].strip():
                    yield line, fields
                elif any(field.strip() for field in fields):
                    yield line, fields if len(fields) == count else None
                line = first_line + reader.line_num
            return
        except csv.Error:  # the reader continues with the next line
            yield line, None
            line = first_line + reader.line_num


def _split(content: bytes, line: int) -> Iterator[Chunk]:
    """Split whole rows into chunks of at most CHUNK_LINES lines. Raises InvalidInput for a row of more lines."""
    if _count_lines(content) < CHUNK_LINES:
        yield Chunk(line, content)
        return
    chunk = row = at = 0  # where each begins
    chunk_lines = row_lines = quotes = 0
    for text in content.splitlines(keepends=True):  # as the CSV reader counts lines
        at += len(text)
        quotes += text.count(b'"')
        row_lines += 1
        if row_lines > CHUNK_LINES:
            raise _too_long(line + chunk_lines, f"{CHUNK_LINES:,} lines")
        if quotes % 2:
            continue
        if chunk_lines + row_lines > CHUNK_LINES:
            yield Chunk(line, content[chunk:row])
            line, chunk, chunk_lines = line + chunk_lines, row, 0
        chunk_lines += row_lines
        row, row_lines = at, 0
    yield Chunk(line, content[chunk:])


def _count_lines(content: bytes | bytearray) -> int:
    """The line breaks of whole rows, as the CSV reader counts them."""
    return content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def _too_long(line: int, limit: str) -> InvalidInput:
    rule = f"must end within {limit}; check for an unclosed quote"
    return InvalidInput("body", f"the row at line {line}", rule)


def _last_row_end(buffer: bytearray, limit: int) -> int:
    """The end of the last row that ends within a limit; 0 if none does.

    A line break ends a row if the number of quotes before it is even.
    """
    end = buffer.rfind(b"\n", 0, limit) + 1
    quotes = buffer.count(b'"', 0, end)
    while end and quotes % 2:
        opening = buffer.rfind(b'"', 0, end)
        previous = buffer.rfind(b"\n", 0, opening) + 1
        quotes -= buffer.count(b'"', previous, end)
        end = previous
    return end


def _find_columns(header: list[str], kind: SeatBatchKind) -> Columns:
    if len(header) > MOST_COLUMNS:
        raise InvalidInput("header", f"{len(header)} columns", f"must have at most {MOST_COLUMNS} columns")
    names = [re.sub(r"[^a-z]", "", field.casefold()) for field in header]
    match kind:
        case SeatBatchKind.IMPORT:
            key = _one(header, names, _EMAIL, "email or e-mail address")
            return Columns(len(header), key, None, _any(names, _NAME), _unit(header, names))
        case SeatBatchKind.TRANSFER:
            key = _one(header, names, _FROM, "from, email or subject")
            return Columns(len(header), key, _one(header, names, _TO, "to or new email"), _any(names, _TO_NAME))
        case _:
            return Columns(len(header), _one(header, names, _SUBJECT, "email or subject"), None, None)


def _one(header: list[str], names: list[str], accepted: frozenset[str], rule: str) -> int:
    found = [index for index, name in enumerate(names) if name in accepted]
    if len(found) != 1:
        raise InvalidInput("header", ",".join(header)[:200], f"must have one column named {rule}")
    return found[0]


def _unit(header: list[str], names: list[str]) -> int | None:
    """The unit column, if there is one. Two are refused: a unit is published, so a wrong guess would be public."""
    return _one(header, names, _UNIT, "unit, or none") if _any(names, _UNIT) is not None else None


def _any(names: list[str], accepted: frozenset[str]) -> int | None:
    return next((index for index, name in enumerate(names) if name in accepted), None)
