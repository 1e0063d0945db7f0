"""Text that people write is composed, in bounded time whatever they send."""

import pytest

from muster_entitlements.domain.people import normalize_email, normalize_name
from muster_entitlements.domain.units import normalize_unit
from muster_runtime.errors import InvalidInput
from muster_runtime.text import check_mailable, check_reason, composed

# Marks of two classes in the wrong order: sorting this many takes a minute.
MARKS = "a" + "\u0301" * 100_000 + "\u0316" * 100_000


def test_text_is_composed() -> None:
    assert composed("A\u030angstro\u0308m") == "\u00c5ngstr\u00f6m"


def test_only_the_beginning_of_an_endless_text_is_composed() -> None:
    assert len(composed(MARKS)) < 2_000


@pytest.mark.parametrize("normalize", [normalize_email, normalize_name, normalize_unit])
def test_an_endless_text_is_refused(normalize: object) -> None:
    assert callable(normalize)
    for text in (MARKS, f"{MARKS}@nasa.gov", f"ada@{MARKS}.gov", "\u1f82" * 400, "x" * 2_000_000):
        with pytest.raises(InvalidInput):
            normalize(text)


def test_a_reason_is_kept_without_spaces_around_it() -> None:
    assert check_reason(" the pilot continues ") == "the pilot continues"


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        (" x ", "at least 3 characters"),
        ("for ada.example@nasa.gov", "must not contain @"),
        ("for ada.example\uff20nasa.gov", "must not contain @"),
    ],
)
def test_a_reason_is_not_too_short_and_contains_no_address(reason: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_reason(reason)


@pytest.mark.parametrize(
    "local_part", ["a", "jane.doe", "JANE_DOE-7", "jane+muster", "o'brien", "!#$%&'*+-/=?^_`{|}~", "x" * 64]
)
def test_an_address_that_mail_can_be_sent_to_is_accepted(local_part: str) -> None:
    check_mailable("email", f"{local_part}@agency.gov")


@pytest.mark.parametrize(
    "local_part",
    [
        "",
        "jane.doe,",
        "<jane",
        "mailto:jane",
        "jane..doe",
        ".jane",
        "jane.",
        "j;k",
        '"jane',
        '"jane"',
        "jane doe",
        "jane\n",
        "a@b",
        "josé",
        "\uff4aane",
        "x" * 65,
    ],
)
def test_an_address_that_no_mail_can_be_sent_to_is_refused(local_part: str) -> None:
    with pytest.raises(InvalidInput, match=r"^email: .* must have 1 to 64 characters before the @: letters"):
        check_mailable("email", f"{local_part}@agency.gov")
