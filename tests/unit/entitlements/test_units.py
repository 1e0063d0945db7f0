"""Seats' units: how they are written, what is refused, and which are the same."""

import pytest

from muster_entitlements.domain.units import LONGEST_UNIT, normalize_unit, unit_key
from muster_runtime.errors import InvalidInput


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("JPL", "JPL"),
        ("  Office of\tthe\n CIO ", "Office of the CIO"),
        ("A\u0308mter", "\u00c4mter"),
        ("x" * LONGEST_UNIT, "x" * LONGEST_UNIT),
        (" \u2028\x1c ", None),
        ("", None),
        (None, None),
    ],
)
def test_a_unit_is_trimmed_and_may_be_missing(written: str | None, unit: str | None) -> None:
    assert normalize_unit(written) == unit


@pytest.mark.parametrize(
    "written",
    [
        "x" * (LONGEST_UNIT + 1),
        "J\x00PL",
        "J\u202ePL",
        "\ud800",
        "ada@nasa.gov",
        "ada\uff20nasa.gov",
        "ada\ufe6bnasa.gov",
    ],
)
def test_a_unit_that_cannot_be_published_is_refused_with_the_rule(written: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        normalize_unit(written)
    [error] = refusal.value.extensions["errors"]
    assert error["field"] == "unit"
    assert error["rule"].startswith("must be at most 80 characters without control characters and without @")


def test_units_that_differ_only_in_case_are_the_same() -> None:
    assert unit_key("Stra\u00dfe") == unit_key("STRASSE") != unit_key("Strasse 2")
    assert unit_key("\u00c5ngstr\u00f6m Lab") == unit_key("\u00e5NGSTR\u00d6M lAB")
