"""The register file: what it may contain, and what is refused."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_enrollment.domain.facts import Agency, Branch
from muster_enrollment.domain.register import COLUMNS, Entry, check_against, check_branches, parse_register
from muster_enrollment.errors import RegisterRefused

HEADER = ",".join(COLUMNS)


def parse(*rows: str, header: str = HEADER) -> list[Agency]:
    return [entry.agency for entry in parse_register("\n".join((header, *rows)).encode(), ",")]


def faults(*rows: str, header: str = HEADER) -> list[tuple[int, str, str]]:
    """The line, field and value of each fault in a file."""
    return faults_in("\n".join((header, *rows)).encode())


def faults_in(content: bytes) -> list[tuple[int, str, str]]:
    with pytest.raises(RegisterRefused) as refusal:
        parse_register(content, ",")
    errors = refusal.value.extensions["errors"]
    assert all(error["rule"] for error in errors)
    return [(error["line"], error["field"], error["value"]) for error in errors]


def test_a_row_becomes_an_agency() -> None:
    assert parse('DOD,Department of Defense,,097,"WAR.gov; defense.gov",771382,executive') == [
        Agency("DOD", "Department of Defense", None, "097", ("defense.gov", "war.gov"), 771382, Branch.EXECUTIVE)
    ]


def test_some_cells_may_be_empty() -> None:
    assert parse("SANDIA,Sandia National Laboratories,,,,,executive") == [
        Agency("SANDIA", "Sandia National Laboratories", None, None, (), None, Branch.EXECUTIVE)
    ]


def test_tabs_a_byte_order_mark_crlf_quoted_newlines_blank_lines_and_further_columns() -> None:
    content = (
        "\ufeffID\tname\tparent\ttreasury_code\tdomains\theadcount\tbranch\topm_code\r\n"
        '\r\nNIH\t"National\r\nInstitutes"\tHHS\t075\tnih.gov\t1\texecutive\tHE38\r\n'
        "HHS\t Health \t\t075\thhs.gov\t2\texecutive\tHE\r\n"
    )
    with pytest.raises(RegisterRefused) as refusal:
        parse_register(content.encode(), "\t")
    assert [(error["line"], error["field"]) for error in refusal.value.extensions["errors"]] == [(3, "name")]
    healed = content.replace('"National\r\nInstitutes"', '"National Institutes"')
    entries = parse_register(healed.encode(), "\t")
    assert [(entry.line, entry.agency.name) for entry in entries] == [(3, "National Institutes"), (4, "Health")]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("nasa,Name,,,,1,executive", "id"),
        (",Name,,,,1,executive", "id"),
        ("NASA,,,,,1,executive", "name"),
        ("NASA,a\x07b,,,,1,executive", "name"),
        ("NASA,a\u2028b,,,,1,executive", "name"),
        ("NASA,a\u2029b,,,,1,executive", "name"),
        ("NASA," + "n" * 201 + ",,,,1,executive", "name"),
        ("NASA,Name,no parent,,,1,executive", "parent"),
        ("NASA,Name,,80,,1,executive", "treasury_code"),
        ("NASA,Name,,,nasa.com,1,executive", "domains"),
        ("NASA,Name,,,nasa.gov.com,1,executive", "domains"),
        ("NASA,Name,,,.gov,1,executive", "domains"),
        ("NASA,Name,,,nasa..gov,1,executive", "domains"),
        ("NASA,Name,,,notagov,1,executive", "domains"),
        ("NASA,Name,,,,-1,executive", "headcount"),
        ("NASA,Name,,,,1.5,executive", "headcount"),
        ("NASA,Name,,,,many,executive", "headcount"),
        ("NASA,Name,,,,1,royal", "branch"),
        ("NASA,Name,,,,1,", "branch"),
        ("NASA,Name,,,,1", "row"),
        ("NASA,Name,,,,1,executive,", "row"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(row: str, field: str) -> None:
    assert [(line, name) for line, name, _ in faults(row)] == [(2, field)]


def test_every_bad_row_is_reported_with_its_line_and_value() -> None:
    assert faults(
        "NASA,Name,,,nasa.com,-1,executive",
        "DOE,Energy,,089,energy.gov,5,executive",
        "short,row",
        "doi,Interior,,014,doi.gov,5,executive",
    ) == [(2, "domains", "nasa.com"), (2, "headcount", "-1"), (4, "row", "short,row"), (5, "id", "doi")]


def test_an_id_or_a_domain_that_appears_twice() -> None:
    assert faults("NASA,Name,,,nasa.gov,1,executive", "NASA,Other,,,NASA.gov,1,executive") == [
        (3, "id", "NASA"),
        (3, "domains", "nasa.gov"),
    ]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_missing_or_appears_twice(column: str) -> None:
    without = ",".join(name for name in COLUMNS if name != column)
    assert faults("NASA", header=without) == [(1, column, without)]
    assert faults("NASA", header=f"{HEADER},{column}") == [(1, column, f"{HEADER},{column}")]


def test_files_that_are_not_a_register() -> None:
    assert {field for _, field, _ in faults_in(b"")} == set(COLUMNS)
    assert faults_in(HEADER.encode()) == [(1, "file", "")]
    assert faults_in(f"{HEADER}\nNASA,Espace\u0301,,,,1,executive\n".encode() + b"\xff") == [(3, "file", "ff")]
    assert faults_in(f'{HEADER}\nNASA,"Name,,,,1,executive\n'.encode()) == [(2, "row", "")]
    assert faults_in(f'{HEADER}\nNASA,"Na"me,,,,1,executive\n'.encode()) == [(2, "row", "")]


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: f"{HEADER}\n".encode() + tail))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(RegisterRefused):
        assert parse_register(content, ",")


def entries(*agencies: tuple[str, str | None, tuple[str, ...]]) -> list[Entry]:
    return [
        Entry(line, Agency(id_, id_, parent, None, domains, None, Branch.EXECUTIVE))
        for line, (id_, parent, domains) in enumerate(agencies, start=2)
    ]


def against(register: Iterable[Entry], file: Iterable[Entry]) -> list[tuple[int, str, str]]:
    try:
        check_against({entry.agency.id: entry.agency for entry in register}, list(file))
    except RegisterRefused as refusal:
        return [(error["line"], error["field"], error["value"]) for error in refusal.extensions["errors"]]
    return []


def test_a_parent_is_in_the_file_or_in_the_register() -> None:
    child = entries(("NIH", "HHS", ()))
    assert against([], child) == [(2, "parent", "HHS")]
    assert against(entries(("HHS", None, ())), child) == []
    assert against([], entries(("NIH", "HHS", ()), ("HHS", None, ()))) == []


def test_a_file_that_is_not_a_register_names_its_first_faults() -> None:
    with pytest.raises(RegisterRefused, match=r"line 2 \(of 50 or more\)") as refusal:
        parse_register(f"{HEADER}\n".encode() + b"a\n" * 1_000_000, ",")
    assert [error["line"] for error in refusal.value.extensions["errors"]] == [*range(2, 52)]
    many = entries(*((f"A{number}", "GONE", ()) for number in range(60)))
    assert len(against([], many)) == 50


def test_a_chain_of_parents_is_walked_once_however_long_it_is() -> None:
    """A walk from each agency to the top would take minutes."""
    chain = [(f"A{number}", f"A{number + 1}", ()) for number in range(50_000)]
    assert against([], entries(*chain, ("A50000", None, ()))) == []
    circle = against([], entries(*chain, ("A50000", "A49998", ())))
    assert [(field, value) for _, field, value in circle] == [
        ("parent", "A49999"),
        ("parent", "A50000"),
        ("parent", "A49998"),
    ]


def test_no_agency_is_its_own_ancestor() -> None:
    assert against([], entries(("A1", "A1", ()))) == [(2, "parent", "A1")]
    assert against([], entries(("A1", "B1", ()), ("B1", "A1", ()))) == [(2, "parent", "B1"), (3, "parent", "A1")]
    register = entries(("A1", "B1", ()), ("B1", None, ()))
    assert against(register, entries(("B1", "A1", ()))) == [(2, "parent", "A1")]
    assert against(register, entries(("A1", None, ()), ("B1", "A1", ()))) == []


def test_a_domain_of_an_agency_that_is_not_in_the_file() -> None:
    register = entries(("A1", None, ("a.gov",)), ("B1", None, ("b.gov",)))
    assert against(register, entries(("C1", None, ("a.gov",)))) == [(2, "domains", "a.gov")]
    assert against(register, entries(("A1", None, ("b.gov",)), ("B1", None, ("a.gov",)))) == []


def test_an_agency_with_a_live_enrollment_stays_in_the_executive_branch() -> None:
    file = [
        Entry(line, Agency(id_, id_, None, None, (), None, branch))
        for line, (id_, branch) in enumerate(
            [("A1", Branch.EXECUTIVE), ("B1", Branch.JUDICIAL), ("C1", Branch.LEGISLATIVE)], start=2
        )
    ]
    check_branches(file, ["A1"])
    with pytest.raises(RegisterRefused) as refusal:
        check_branches(file, ["A1", "C1"])
    errors = refusal.value.extensions["errors"]
    assert [(error["line"], error["field"], error["value"]) for error in errors] == [(4, "branch", "legislative")]
