"""The rules of an agency's enrollment, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import (
    Acceptance,
    Agency,
    Authorization,
    Branch,
    Condition,
    Standing,
    State,
    Term,
)
from muster_runtime.errors import Conflict, InvalidInput, NotFound

NOW = datetime(2025, 8, 6, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


def draft(branch: Branch = Branch.EXECUTIVE) -> Standing:
    agency = Agency("NASA", "National Aeronautics and Space Administration", None, "080", (), 17973, branch)
    return Standing(agency, None, (), ())


def submitted(standing: Standing, *, start: datetime = NOW, now: datetime = NOW) -> Standing:
    return rules.submit(standing, enrollment_id="enr_1", seats=10, requested_start=start, contact_ref="con_1", now=now)


def authorized(standing: Standing, start: datetime = NOW - DAY, end: datetime = NOW + 30 * DAY) -> Standing:
    number = str(len(standing.authorizations) + 1)
    return rules.authorize(standing, Authorization(f"atu_{number}", number, start, end, NOW))


def bound(standing: Standing, at: datetime = NOW) -> Standing:
    return rules.accept_terms(standing, Acceptance("acc_1", "2025-08", at))


def active() -> Standing:
    return rules.settle(bound(authorized(submitted(draft()))), NOW)


def term_of(standing: Standing) -> Term:
    assert standing.enrollment is not None
    assert standing.enrollment.term is not None
    return standing.enrollment.term


def test_a_draft_names_what_is_missing() -> None:
    assert draft().state is State.DRAFT
    assert draft().missing(NOW) == (Condition.AUTHORIZATION, Condition.DATA_USE_TERMS)
    assert authorized(draft()).missing(NOW) == (Condition.DATA_USE_TERMS,)
    assert bound(authorized(draft())).missing(NOW) == ()


@pytest.mark.parametrize(
    "incomplete",
    [bound(authorized(draft())), authorized(submitted(draft())), bound(submitted(draft()))],
    ids=["not submitted", "terms not accepted", "not authorized"],
)
def test_nothing_is_active_while_a_condition_is_missing(incomplete: Standing) -> None:
    assert rules.settle(incomplete, NOW) == incomplete


def test_the_term_is_a_year_from_the_activation_or_from_a_later_requested_start() -> None:
    assert term_of(active()) == Term(NOW, datetime(2026, 8, 6, 12, tzinfo=UTC))
    later = rules.settle(bound(authorized(submitted(draft(), start=NOW + DAY))), NOW)
    assert term_of(later) == Term(NOW + DAY, datetime(2026, 8, 7, 12, tzinfo=UTC))
    earlier = rules.settle(bound(authorized(submitted(draft()))), NOW + 20 * DAY)
    assert term_of(earlier).starts_at == NOW + 20 * DAY


def test_an_authorization_is_in_force_from_its_start_to_just_before_its_end() -> None:
    authorization = Authorization("atu_1", "1", NOW, NOW + DAY, NOW)
    assert not authorization.in_force(NOW - INSTANT)
    assert authorization.in_force(NOW)
    assert authorization.in_force(NOW + DAY - INSTANT)
    assert not authorization.in_force(NOW + DAY)
    assert not replace(authorization, revoked_at=NOW + INSTANT).in_force(NOW + INSTANT)


def test_a_lapse_suspends_and_a_new_authorization_reinstates() -> None:
    end = NOW + 30 * DAY
    assert rules.settle(active(), end - INSTANT).state is State.ACTIVE
    lapsed = rules.settle(active(), end)
    assert lapsed.enrollment is not None
    assert lapsed.enrollment.suspension_reason is SuspensionReason.ATU_LAPSED
    assert lapsed.enrollment.changed_at == end
    renewed = rules.settle(authorized(lapsed, end + DAY, end + 90 * DAY), end + DAY)
    assert renewed.state is State.ACTIVE
    assert term_of(renewed) == term_of(active()), "a suspension does not move the term"


def test_a_revocation_suspends_only_when_no_other_authorization_is_in_force() -> None:
    twice = authorized(active(), NOW - DAY, NOW + 10 * DAY)
    once, _ = rules.revoke(twice, "atu_1", NOW + DAY)
    assert rules.settle(once, NOW + DAY).state is State.ACTIVE
    none, revoked = rules.revoke(once, "atu_2", NOW + 2 * DAY)
    suspended = rules.settle(none, NOW + 2 * DAY)
    assert revoked.stops_at == NOW + 2 * DAY
    assert suspended.enrollment is not None
    assert suspended.enrollment.suspension_reason is SuspensionReason.ATU_REVOKED


def test_a_revocation_needs_an_authorization_that_has_not_stopped() -> None:
    with pytest.raises(NotFound, match="atu_9"):
        rules.revoke(active(), "atu_9", NOW)
    with pytest.raises(Conflict, match="stopped"):
        rules.revoke(active(), "atu_1", NOW + 30 * DAY)


def test_only_the_executive_branch_may_join() -> None:
    for branch in (Branch.LEGISLATIVE, Branch.JUDICIAL):
        with pytest.raises(InvalidInput, match=branch):
            submitted(draft(branch))


def test_one_enrollment_is_live_at_a_time() -> None:
    with pytest.raises(Conflict, match="enr_1"):
        submitted(active())
    again = submitted(rules.withdraw(active(), "reorganized", NOW))
    assert again.enrollment is not None
    assert again.enrollment.number == 2


def test_no_enrollment_starts_before_the_program() -> None:
    submitted(draft(), start=rules.PROGRAM_START)
    with pytest.raises(InvalidInput, match=r"starts_at.*not be before the program's start, 2025-08-06"):
        submitted(draft(), start=rules.PROGRAM_START - INSTANT)


@pytest.mark.parametrize("address", ["a@nasa.gov", "a.b@JPL.NASA.GOV", "a@us.af.mil", "a@x-1.gov"])
def test_an_address_of_the_government_is_accepted(address: str) -> None:
    rules.check_address("contact.email", address)


@pytest.mark.parametrize(
    "address",
    [
        "a@nasa.com",
        "a@gov",
        "a@.gov",
        "a@nasa.gov.",
        "a@nasa.gov.example",
        "a@nasa-gov",
        "a@-.gov",
        "a@b_c.gov",
    ],
)
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match=r"contact.email.*\.gov or \.mil"):
        rules.check_address("contact.email", address)


@pytest.mark.parametrize("address", ["jane.doe,@agency.gov", "josé@agency.gov", "a@nasa.gov@evil.com"])
def test_an_address_that_no_mail_can_be_sent_to_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match=f"signer.email: '{address}' is invalid: .* before the @"):
        rules.check_address("signer.email", address)


@pytest.mark.parametrize(("headcount", "most"), [(15_000, 22_500), (3, 4), (1, 1), (0, 0)])
def test_seats_follow_the_headcount(headcount: int, most: int) -> None:
    rules.check_seats(most, headcount, 1.5)
    with pytest.raises(InvalidInput, match=f"seats.*at most {most}: 1.5 times the headcount of {headcount}"):
        rules.check_seats(most + 1, headcount, 1.5)


def test_an_unknown_headcount_limits_no_seats() -> None:
    rules.check_seats(10_000_000, None, 1.5)


def test_a_start_is_at_most_a_year_ahead() -> None:
    submitted(draft(), start=NOW + rules.LONGEST_LEAD)
    with pytest.raises(InvalidInput, match="starts_at"):
        submitted(draft(), start=NOW + rules.LONGEST_LEAD + INSTANT)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"issuer": "NASA"}, "issuer"),
        ({"product": "another"}, "product"),
        ({"valid_until": NOW}, "valid_until"),
        ({"valid_from": NOW + DAY, "valid_until": NOW + DAY}, "valid_until"),
        ({"valid_from": NOW + DAY, "valid_until": NOW}, "valid_until"),
    ],
)
def test_an_authorization_is_one_of_the_programs_with_time_left(changes: dict[str, object], field: str) -> None:
    valid: dict[str, object] = {
        "issuer": "GSA",
        "product": "frontier-assistant",
        "valid_from": NOW - DAY,
        "valid_until": NOW + DAY,
    }
    rules.check_authorization(**valid, now=NOW)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refusal:
        rules.check_authorization(**valid | changes, now=NOW)  # type: ignore[arg-type]
    assert refusal.value.extensions["errors"][0]["field"] == field


def test_an_authorization_is_recorded_once_by_its_number() -> None:
    with pytest.raises(Conflict, match="authorization 1"):
        rules.authorize(active(), Authorization("atu_9", "1", NOW, NOW + DAY, NOW))


def test_terms_are_of_a_known_version_and_accepted_once() -> None:
    with pytest.raises(InvalidInput, match="2025-08"):
        rules.accept_terms(draft(), Acceptance("acc_1", "1999-01", NOW))
    with pytest.raises(Conflict):
        bound(bound(draft()))


def test_a_withdrawal_needs_a_live_enrollment() -> None:
    for standing in (draft(), rules.withdraw(active(), "reorganized", NOW)):
        with pytest.raises(Conflict):
            rules.withdraw(standing, "again", NOW)


def test_a_completed_term_ends_the_enrollment_even_when_suspended() -> None:
    end = term_of(active()).ends_at
    suspended = rules.settle(active(), NOW + 30 * DAY)
    for enrollment_id in ("enr_1", None):
        assert rules.end_term(active(), enrollment_id, end).state is State.ENDED
        assert rules.end_term(suspended, enrollment_id, end).state is State.ENDED


def test_the_end_of_an_earlier_enrollments_term_changes_nothing() -> None:
    end = term_of(active()).ends_at
    assert rules.end_term(active(), None, end - INSTANT) == active()
    assert rules.end_term(active(), "enr_earlier", end) == active()
    waiting = submitted(rules.withdraw(active(), "reorganized", NOW))
    for enrollment_id in ("enr_1", None):
        assert rules.end_term(waiting, enrollment_id, end) == waiting
        assert rules.end_term(draft(), enrollment_id, end) == draft()


def test_a_term_whose_enrollment_was_activated_again_with_later_dates_ends_it() -> None:
    standing = active()
    assert rules.end_term(standing, "enr_1", term_of(standing).ends_at - INSTANT).state is State.ENDED


spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 10), st.none() | st.integers(0, 20)), min_size=1, max_size=5
)


@given(spans, st.integers(0, 31))
def test_catching_up_ends_in_the_state_that_the_authorizations_determine(
    found: list[tuple[int, int, int | None]], until: int
) -> None:
    """Settling at each boundary, in turn, leaves the enrollment active exactly while some authorization is in force."""
    standing = bound(submitted(draft()))
    for start, length, revoked in found:
        stop = NOW + (start + length) * DAY
        standing = authorized(standing, NOW + start * DAY, stop)
        if revoked is not None and NOW + revoked * DAY < stop:
            standing, _ = rules.revoke(standing, standing.authorizations[-1].authorization_id, NOW + revoked * DAY)

    def in_force(day: int) -> bool:
        return any(
            start <= day < min(start + length, start + length if revoked is None else revoked)
            for start, length, revoked in found
        )

    at = NOW + until * DAY
    for boundary in rules.boundaries(standing, at):
        standing = rules.settle(standing, boundary)
    assert (standing.state is State.ACTIVE) == in_force(until)
    assert (standing.state is State.SUBMITTED) == (not any(in_force(day) for day in range(until + 1)))
    assert rules.settle(standing, at) == standing


@pytest.mark.parametrize("name", ["localtime", "Factory", "posixrules", "posix/UTC", "America/Washington", ""])
def test_a_time_zone_is_one_of_the_iana_database(name: str) -> None:
    for valid in (None, "America/New_York", "US/Eastern", "UTC"):
        rules.check_time_zone(valid)
    with pytest.raises(InvalidInput, match=f"time_zone: '{name}' is invalid: must be a time zone of the IANA"):
        rules.check_time_zone(name)


def test_an_agency_continues_others_that_are_known() -> None:
    rules.check_continued("NIH", [], ())
    rules.check_continued("NIH", ["HHS", "NSF"], ["NSF", "HHS"])
    for continues, refused in ((["HHS", "NIH"], "NIH"), (["HHS", "NOAA"], "NOAA")):
        with pytest.raises(InvalidInput, match=f"continues.1: '{refused}' is invalid: must be an agency of the reg"):
            rules.check_continued("NIH", continues, ["HHS", "NIH"])
