"""Every rule's e-mail can be written from an event's data, in text and HTML that say the same."""

import re
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts import Event, Money, billing, enrollment, entitlements, notify
from muster_notify.domain.contacts import Contact
from muster_notify.domain.messages import Unwritable, messages, write
from muster_notify.domain.rules import rules
from muster_runtime.errors import InvalidInput
from muster_runtime.text import check_mailable

AT = datetime(2025, 8, 6, 12, 30, tzinfo=UTC)
LATER = datetime(2026, 8, 6, tzinfo=UTC)
DOLLAR = Money(amount_minor=100, currency="USD")
TERM = {"agency_id": "NASA", "term_id": "term_1"}
INVOICE = {**TERM, "invoice_id": "inv_1"}
WINDOW = {"agency_id": "NASA", "window_id": "win_1", "feature": "deep-research"}

EVENTS: list[Event] = [
    enrollment.AgencyEnrolled(
        agency_id="NASA",
        enrollment_id="enr_1",
        agency_name="National <Aeronautics> & Space Administration",
        seats=17973,
        starts_at=AT,
        ends_at=LATER,
    ),
    enrollment.AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="atu_lapsed", suspended_at=AT),
    enrollment.AgencyReinstated(agency_id="NASA", enrollment_id="enr_1", reinstated_at=AT),
    enrollment.AgencyWithdrawn(agency_id="NASA", enrollment_id="enr_1", reason="reorganized", withdrawn_at=AT),
    entitlements.TrialEndingSoon(**WINDOW, ends_at=AT, days_left=1),
    entitlements.TrialExpired(**WINDOW, expired_at=AT, mode_after="quota", monthly_quota_after=25),
    entitlements.QuotaThresholdCrossed(
        agency_id="NASA",
        feature="deep-research",
        subject_ref="sub_1",
        threshold_percent=100,
        used=25,
        quota=25,
        period_starts_at=AT,
        period_ends_at=LATER,
    ),
    entitlements.AgencyQuotaThresholdCrossed(
        agency_id="NASA",
        feature="deep-research",
        threshold_percent=100,
        used=5000,
        quota=5000,
        period_starts_at=AT,
        period_ends_at=LATER,
    ),
    entitlements.FeatureAccessChanged(**WINDOW, changed_at=AT, previous_mode="unlimited", mode="none"),
    entitlements.SeatTrialsEndingSoon(**WINDOW, ending=[entitlements.EndingSeats(days_left=7, seats=2)]),
    entitlements.SeatLimitReached(agency_id="NASA", cap=10, in_use=10, refused=1),
    entitlements.SeatBatchCompleted(
        agency_id="NASA", batch_id="bat_1", rows=10, assigned=7, already_held=2, refused=1, kind="import"
    ),
    billing.InvoiceIssued(**INVOICE, invoice_number="NASA-2025-01", amount=DOLLAR, issued_at=AT, due_at=LATER),
    billing.InvoicePaid(**INVOICE, payment_id="pay_1", amount=DOLLAR, paid_at=AT),
    billing.InvoiceVoided(**INVOICE, reason="agency_withdrawn", voided_at=AT),
    billing.PaymentOverdue(**INVOICE, amount=DOLLAR, due_at=AT, days_overdue=1, level=1),
    billing.RenewalOffered(
        **TERM, renewal_id="ren_1", price=DOLLAR, next_starts_at=AT, next_ends_at=LATER, decide_by=AT
    ),
    billing.RenewalDecided(
        **TERM,
        renewal_id="ren_1",
        decision="accepted",
        price=DOLLAR,
        next_starts_at=AT,
        next_ends_at=LATER,
        decided_at=AT,
    ),
    billing.TermEnded(**TERM, reason="completed", renewed=True, ended_at=AT),
    notify.WebhookEndpointDisabled(agency_id="NASA", webhook_id="whk_1", failing_since=AT, disabled_at=AT),
]


def written(event: Event, message: str, *recipients: Contact) -> EmailMessage:
    return write(
        messages()[message],
        event.model_dump(mode="json"),
        delivery_id="dlv_1",
        sender="muster@program.example",
        recipients=recipients or [Contact("Ann Other", "ann@nasa.example")],
        date=AT,
    )


class Words(HTMLParser):
    """The text of a page, and its language and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text.extend(data.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def parts(email: EmailMessage) -> tuple[str, str]:
    text, html = email.get_body(("plain",)), email.get_body(("html",))
    assert text is not None
    assert html is not None
    return text.get_content(), html.get_content()


def test_every_rule_has_an_example_here_and_a_message() -> None:
    assert {rule.event for rule in rules().email} == {event.event_type for event in EVENTS}
    assert {rule.message for rule in rules().email} == set(messages())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_text_and_html_say_the_same(event: Event) -> None:
    for rule in rules().for_event(event.event_type):
        text, html = parts(written(event, rule.message))
        page = Words(html)
        for line in text.splitlines():
            for word in re.findall(r"[\w$,.]+", line):
                assert word.strip(".,") in " ".join(page.text)
        assert ("html", {"lang": "en"}) in page.tags
        assert [tag for tag, _ in page.tags].count("h1") == 1
        assert "{{" not in text + html
        assert "None" not in text + html


def test_data_of_an_event_cannot_become_markup() -> None:
    email = written(EVENTS[0], "enrolled")
    text, html = parts(email)
    assert email["Subject"] == "National <Aeronautics> & Space Administration is enrolled"
    assert "National <Aeronautics> & Space" in text
    assert "<Aeronautics>" not in html
    assert "National &lt;Aeronautics&gt; &amp; Space" in html


def test_the_headers_identify_the_delivery() -> None:
    email = written(EVENTS[0], "enrolled")
    assert email["Message-ID"] == "<dlv_1@program.example>"
    assert email["Date"].datetime == AT
    assert email["From"] == "Muster <muster@program.example>"
    assert email["To"] == "Ann Other <ann@nasa.example>"
    assert email["Auto-Submitted"] == "auto-generated"
    assert "Dear Ann Other" in parts(email)[0]


@pytest.mark.parametrize("late", [False, True])
def test_an_offer_says_whether_it_is_late(late: bool) -> None:
    offer = next(event for event in EVENTS if isinstance(event, billing.RenewalOffered))
    email = written(offer.model_copy(update={"decide_by": LATER if late else AT}), "renewal-offered")
    text, _ = parts(email)
    before = "before August 6, 2026, 00:00 UTC" if late else "before August 6, 2025, 12:30 UTC"
    assert email["Subject"].endswith(f"please decide {before}")
    assert ("This offer is late" in text) is late
    assert ("without a break" in text) is not late


def test_instants_and_money_are_in_words() -> None:
    issued = next(event for event in EVENTS if isinstance(event, billing.InvoiceIssued))
    text, _ = parts(written(issued, "invoice-issued"))
    assert "Amount: $1.00" in text
    assert "Issued on: August 6, 2025, 12:30 UTC" in text


@pytest.mark.parametrize("message", ["quota-threshold-crossed", "quota-used-up", "agency-quota-threshold-crossed"])
def test_a_threshold_states_the_uses_that_the_quota_counts(message: str) -> None:
    rule = next(rule for rule in rules().email if rule.message == message)
    event = next(event for event in EVENTS if event.event_type == rule.event)
    crossed = event.model_copy(update={"used": 213, "charged": 25, "quota": 25})
    text, _ = parts(written(crossed, message))
    assert "Used: 25 of 25" in text
    assert "213" not in text
    before = event.model_copy(update={"used": 24, "quota": 25})  # from a version without `charged`
    assert "Used: 24 of 25" in parts(written(before, message))[0]


def test_a_subject_cannot_add_a_header() -> None:
    event = EVENTS[0].model_copy(update={"agency_name": "X\r\nBcc: all@agency.example"})
    with pytest.raises(Unwritable):
        written(event, "enrolled")


@pytest.mark.parametrize(
    "address", ["nonsense", "ann@", "a@b@c", "a b@agency.example", "x@agency.example\r\nBcc: y@z.example"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(Unwritable) as refused:
        written(EVENTS[0], "enrolled", Contact(None, address))
    assert address not in str(refused.value)


@given(st.text(st.characters(max_codepoint=0x17F), max_size=5))
def test_mail_can_be_sent_to_every_address_that_the_services_accept(local_part: str) -> None:
    address = f"{local_part}@agency.gov"
    try:
        check_mailable("email", address)
    except InvalidInput:
        return
    email = written(EVENTS[0], "enrolled", Contact("Ann", address))
    assert [to.addr_spec for to in email["To"].addresses] == [address]
    email.as_bytes()


def test_a_recipient_without_a_valid_address_is_left_out() -> None:
    email = written(EVENTS[0], "enrolled", Contact("Ann", "a@nasa.example"), Contact(None, "nonsense"))
    assert email["To"] == "Ann <a@nasa.example>"


def test_with_several_recipients_all_are_addressed_and_none_is_named() -> None:
    email = written(EVENTS[0], "enrolled", Contact("Ann", "a@nasa.example"), Contact(None, "b@nasa.example"))
    assert [address.addr_spec for address in email["To"].addresses] == ["a@nasa.example", "b@nasa.example"]
    assert "Dear" not in parts(email)[0]
