"""Seat files: what is read leniently, and what is refused as a whole."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_entitlements.seat_file import MOST_ROWS, Row, read_seat_file
from muster_runtime.errors import InvalidInput

ROWS = [Row(2, "ada@nasa.gov", "Ada"), Row(3, "bob@nasa.gov", "Bob")]


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
def test_files_are_read_leniently(body: bytes) -> None:
    assert read_seat_file(body) == ROWS


def test_a_quoted_line_break_is_part_of_its_row() -> None:
    body = b'email,name\r\nada@nasa.gov,"Ada\r\nKing"\r\nbob@nasa.gov,Bob\r\n'
    assert read_seat_file(body) == [Row(2, "ada@nasa.gov", "Ada\r\nKing"), Row(4, "bob@nasa.gov", "Bob")]


def test_names_may_be_left_out() -> None:
    assert read_seat_file(b"email\nada@nasa.gov\n") == [Row(2, "ada@nasa.gov", None)]


def test_a_row_of_another_shape_is_kept_to_be_refused() -> None:
    assert read_seat_file(b"email,name\nada@nasa.gov\nbob@nasa.gov,Bob\n") == [Row(2, None, None), ROWS[1]]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "header line"),
        (b"\xef\xbb\xbf \r\n", "header line"),
        (b"email\nada\xff@nasa.gov\n", "UTF-8"),
        ("email\nada@nasa.gov\n".encode("utf-16"), "UTF-8"),
        (b"name,phone\nAda,1\n", "column named email"),
        (b"email,e-mail\na@nasa.gov,b@nasa.gov\n", "column named email"),
        (b'email\n"ada@nasa.gov\nbob@nasa.gov\n', "CSV"),
        (b"email\n" + b"a" * 200_000, "CSV"),
        (b"email\n" + b"a@nasa.gov\n" * (MOST_ROWS + 1), "at most 10000 rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_as_a_whole(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        read_seat_file(body)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@given(st.lists(st.tuples(texts.filter(str.strip), texts), max_size=20))
def test_what_a_csv_writer_writes_is_read_as_it_was(rows: list[tuple[str, str]]) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["email", "name"])
    writer.writerows(rows)
    read = read_seat_file(written.getvalue().encode())
    assert [(row.email, row.name) for row in read] == rows
