"""Addresses and names are normalized, and references reveal neither."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_entitlements.domain.people import Directory, mailable_email, normalize_email, normalize_name
from muster_runtime.errors import InvalidInput

DIRECTORY = Directory("a key")


@pytest.mark.parametrize(
    "written",
    [
        "josé.example@nasa.gov",
        "  JOSÉ.Example@NASA.GOV\n",
        unicodedata.normalize("NFD", "José.Example@nasa.gov"),
    ],
)
def test_one_address_can_be_written_in_many_ways(written: str) -> None:
    assert normalize_email(written) == unicodedata.normalize("NFC", "josé.example@nasa.gov")


@pytest.mark.parametrize("domain", ["nasa.gov", "jpl.nasa.gov", "us.af.mil", "xn--abc.gov"])
def test_domains_of_the_government(domain: str) -> None:
    assert normalize_email(f"a@{domain}") == f"a@{domain}"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "@nasa.gov",
        "ada",
        "ada@",
        "ada@gov",
        "ada@nasa.com",
        "ada@nasa.gov.example.com",
        "ada@nasagov",
        "ada@nasa..gov",
        "ada@-nasa.gov",
        "ada@nasa.gov.",
        "ada..example@nasa.gov",
        ".ada@nasa.gov",
        "ada example@nasa.gov",
        "ada\x00@nasa.gov",
        "ada\n@nasa.gov",
        "ada@evil.example@nasa.gov",
        '"ada"@nasa.gov',
        f"{'a' * 65}@nasa.gov",
        f"a@{'b.' * 130}gov",
    ],
)
def test_a_value_that_is_not_an_address_is_refused_and_named(written: str) -> None:
    with pytest.raises(InvalidInput, match=r"^email: ") as refusal:
        normalize_email(written)
    assert repr(written[:200]) in refusal.value.detail


@pytest.mark.parametrize("written", ["josé@nasa.gov", "straße@nasa.gov", "\u212aim@nasa.gov", "ada,@nasa.gov"])
def test_nobody_gets_a_seat_under_an_address_that_no_mail_can_be_sent_to(written: str) -> None:
    for accept in (mailable_email, lambda email: DIRECTORY.person("NASA", email, None)):
        with pytest.raises(InvalidInput, match=r"^email: .* before the @: letters from a to z"):
            accept(written)
    assert mailable_email(" Ada@NASA.gov\n") == "ada@nasa.gov"


def test_a_person_who_holds_a_seat_under_such_an_address_is_still_found() -> None:
    assert DIRECTORY.subject_ref("NASA", "José@nasa.gov") == DIRECTORY.reference("NASA", "josé@nasa.gov")


@given(st.from_regex(r"[\w.+-]{1,20}", fullmatch=True))
def test_a_normalized_address_stays_as_it_is(local_part: str) -> None:
    try:
        address = normalize_email(f"{local_part}@nasa.gov")
    except InvalidInput:
        return
    assert normalize_email(address) == address
    assert normalize_email(unicodedata.normalize("NFD", address)) == address


@given(st.from_regex(r"[A-Za-z0-9+-]{1,20}", fullmatch=True))
def test_case_makes_no_difference(local_part: str) -> None:
    assert normalize_email(f"{local_part}@nasa.gov") == normalize_email(f"{local_part.swapcase()}@NASA.gov")


def test_a_name_becomes_one_line() -> None:
    assert normalize_name(" Ada\r\n  King ") == "Ada King"
    assert normalize_name("") is None
    assert normalize_name(None) is None


@pytest.mark.parametrize("name", ["Ada\x00", "\x1b[31mAda", "a" * 201])
def test_a_name_with_control_characters_or_of_excessive_length_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^name: "):
        normalize_name(name)


def test_a_reference_is_stable_and_belongs_to_one_agency_and_one_key() -> None:
    reference = DIRECTORY.person("NASA", "Ada@nasa.gov", "Ada").subject_ref
    assert re.fullmatch(r"sub_[0-9a-f]{32}", reference)
    assert DIRECTORY.subject_ref("NASA", "ada@NASA.gov") == reference
    assert DIRECTORY.subject_ref("NASA", reference) == reference
    assert DIRECTORY.subject_ref("GSA", "ada@nasa.gov") != reference
    assert Directory("another key").subject_ref("NASA", "ada@nasa.gov") != reference
