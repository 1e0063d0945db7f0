"""Fiscal years, periods, and the transitions of terms, invoices, and renewals."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_billing.domain import (
    Invoice,
    InvoiceState,
    Issuance,
    Money,
    Renewal,
    RenewalState,
    Term,
    civil_day,
    fiscal_year,
    invoice_number,
)
from muster_billing.errors import InvoiceNotPayable, RenewalClosed
from muster_contracts.calendar import one_year_after
from muster_runtime.errors import InvalidInput

START = datetime(2025, 8, 6, tzinfo=UTC)
END = datetime(2026, 8, 6, tzinfo=UTC)
WASHINGTON = ZoneInfo("America/New_York")
DOLLAR = Money(100, "USD")

instants = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis takes bounds without a zone
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def term(starts_at: datetime = START, ends_at: datetime = END) -> Term:
    return Term("term_1", "NASA", "enr_1", 1, starts_at, ends_at, civil_day(starts_at, WASHINGTON), DOLLAR)


def draft() -> Invoice:
    return Invoice("inv_1", "NASA", "term_1", 2025, DOLLAR)


def issued() -> Invoice:
    return draft().issue(Issuance.at(START, 1))


def offer() -> Renewal:
    return Renewal.offer("ren_1", term(), DOLLAR, END - timedelta(days=60))


@pytest.mark.parametrize(
    ("instant", "year"),
    [
        (datetime(2025, 10, 1, 3, tzinfo=UTC), 2025),  # 23:00 on September 30 in Washington
        (datetime(2025, 10, 1, 3, 59, 59, 999999, tzinfo=UTC), 2025),
        (datetime(2025, 10, 1, 4, tzinfo=UTC), 2026),
        (datetime(2025, 12, 31, tzinfo=UTC), 2026),
        (datetime(2026, 1, 1, tzinfo=UTC), 2026),
        (START, 2025),
    ],
)
def test_a_fiscal_year_begins_on_october_1_in_washington(instant: datetime, year: int) -> None:
    assert term(instant, instant + timedelta(days=365)).fiscal_year == year


@given(instants)
def test_every_day_is_within_its_fiscal_year(instant: datetime) -> None:
    year = fiscal_year(instant.date())
    assert date(year - 1, 10, 1) <= instant.date() < date(year, 10, 1)


@pytest.mark.parametrize("hour", [4, 14, 23])
def test_a_period_of_performance_is_exactly_one_year_whatever_the_hour(hour: int) -> None:
    starts_at = datetime(2025, 8, 6, hour, 30, tzinfo=UTC)
    year = term(starts_at, one_year_after(starts_at))
    assert (year.first_day, year.last_day) == (date(2025, 8, 6), date(2026, 8, 5))


@given(instants)
def test_periods_of_performance_have_no_gap_and_no_overlap(instant: datetime) -> None:
    first = term(instant, one_year_after(instant))
    second = first.followed_by("term_2", Renewal.offer("ren_1", first, DOLLAR, instant), WASHINGTON)
    third = second.followed_by("term_3", Renewal.offer("ren_2", second, DOLLAR, instant), WASHINGTON)
    for earlier, later in ((first, second), (second, third)):
        assert later.first_day == earlier.last_day + timedelta(days=1)
        assert (later.first_day - earlier.first_day).days in (365, 366)


def test_a_change_to_daylight_saving_time_moves_no_day() -> None:
    starts_at = datetime(2026, 3, 10, 4, 30, tzinfo=UTC)  # after midnight in Washington; before midnight a year later
    first = term(starts_at, one_year_after(starts_at))
    second = first.followed_by("term_2", Renewal.offer("ren_1", first, DOLLAR, starts_at), WASHINGTON)
    assert civil_day(second.starts_at, WASHINGTON) == date(2027, 3, 9)
    assert first.last_day == date(2027, 3, 9)
    assert second.first_day == date(2027, 3, 10)


@pytest.mark.parametrize("ends_at", [START, START - timedelta(days=1)])
def test_a_term_that_does_not_end_after_it_starts_is_refused(ends_at: datetime) -> None:
    with pytest.raises(InvalidInput, match="ends_at"):
        term(ends_at=ends_at)


def test_a_renewal_is_offered_60_days_before_the_end_or_at_the_start_of_a_shorter_term() -> None:
    assert term().offer_at == datetime(2026, 6, 7, tzinfo=UTC)
    assert term(ends_at=START + timedelta(days=20)).offer_at == START


def test_a_draft_has_no_notice_and_an_invoice_is_due_30_days_after_its_issue() -> None:
    assert draft().next_notice is None
    assert issued().issuance == Issuance(1, START, START + timedelta(days=30))
    assert invoice_number("NASA", 2025, 1) == "NASA-2025-01"


def test_an_unpaid_invoice_has_notices_at_its_due_instant_and_30_and_60_days_later() -> None:
    invoice, notices = issued(), []
    while notice := invoice.next_notice:
        notices.append((notice.level, notice.days_overdue(notice.send_at), notice.send_at - START))
        invoice = invoice.escalate(notice)
    assert notices == [(1, 0, timedelta(days=30)), (2, 30, timedelta(days=60)), (3, 60, timedelta(days=90))]
    assert invoice.state is InvoiceState.ISSUED


@given(st.integers(), st.sampled_from(["USD", "EUR", "usd"]))
def test_only_the_exact_amount_in_the_currency_of_the_invoice_pays_it(amount_minor: int, currency: str) -> None:
    amount = Money(amount_minor, currency)
    if amount == DOLLAR:
        assert issued().pay(amount, START).state is InvoiceState.PAID
    else:
        with pytest.raises(InvalidInput, match="amount"):
            issued().pay(amount, START)


@pytest.mark.parametrize("invoice", [draft(), issued().pay(DOLLAR, START), issued().void("left", START)])
def test_only_an_issued_invoice_can_be_paid(invoice: Invoice) -> None:
    with pytest.raises(InvoiceNotPayable, match=invoice.state):
        invoice.pay(DOLLAR, START)
    assert invoice.next_notice is None


def test_a_renewal_starts_when_its_term_ends() -> None:
    following = term().followed_by("term_2", offer(), WASHINGTON)
    assert (following.starts_at, following.ends_at) == (END, datetime(2027, 8, 6, tzinfo=UTC))
    assert (following.number, following.enrollment_id, following.fiscal_year) == (2, "enr_1", 2026)


def test_a_renewal_can_be_decided_up_to_but_not_at_the_end_of_the_term() -> None:
    last_moment = END - timedelta(microseconds=1)
    assert offer().decide(RenewalState.ACCEPTED, last_moment).state is RenewalState.ACCEPTED
    with pytest.raises(RenewalClosed, match="before 2026-08-06"):
        offer().decide(RenewalState.ACCEPTED, END)


@pytest.mark.parametrize("late", [timedelta(days=-31), timedelta(days=-30), timedelta(days=-1), timedelta(days=400)])
def test_an_agency_has_at_least_30_days_to_decide_from_when_the_offer_is_made(late: timedelta) -> None:
    made_at = END + late
    renewal = Renewal.offer("ren_1", term(), DOLLAR, made_at)
    assert renewal.decide_by == max(END, made_at + timedelta(days=30))
    accepted_at = renewal.decide_by - timedelta(microseconds=1)
    accepted = renewal.decide(RenewalState.ACCEPTED, accepted_at)
    begins = max(END, accepted_at)
    assert (accepted.next_starts_at, accepted.next_ends_at) == (begins, one_year_after(begins))
    assert accepted.decide_by == renewal.decide_by
    following = term().followed_by("term_2", accepted, WASHINGTON)
    assert (following.starts_at, following.ends_at) == (begins, one_year_after(begins))


def test_a_late_term_has_the_civil_day_and_fiscal_year_of_its_acceptance() -> None:
    renewal = Renewal.offer("ren_1", term(), DOLLAR, END + timedelta(days=40))
    for accepted_at, day, year in (
        (datetime(2026, 10, 1, 3, tzinfo=UTC), date(2026, 9, 30), 2026),
        (datetime(2026, 10, 1, 5, tzinfo=UTC), date(2026, 10, 1), 2027),
    ):
        accepted = renewal.decide(RenewalState.ACCEPTED, accepted_at)
        following = term().followed_by("term_2", accepted, WASHINGTON)
        assert (following.first_day, following.fiscal_year) == (day, year)


def test_a_decision_can_be_repeated_but_not_changed() -> None:
    accepted = offer().decide(RenewalState.ACCEPTED, START)
    assert accepted.decide(RenewalState.ACCEPTED, END) is accepted
    with pytest.raises(RenewalClosed, match="already accepted"):
        accepted.decide(RenewalState.DECLINED, START)


@pytest.mark.parametrize("state", [RenewalState.LAPSED, RenewalState.WITHDRAWN])
def test_a_closed_offer_cannot_be_decided(state: RenewalState) -> None:
    with pytest.raises(RenewalClosed, match=state):
        offer().close(state).decide(RenewalState.ACCEPTED, START)
