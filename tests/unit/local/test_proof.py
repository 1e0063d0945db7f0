"""Each line of the proof is green on sound books, and goes red on whatever it is there to find."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_contracts import Envelope, Event, Money, event_id, source_of
from muster_contracts.billing import InvoiceIssued, InvoicePaid, RenewalDecided, TermStarted
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_contracts.entitlements import FeatureWindowOpened, SeatAssigned, SeatRevoked, TrialEndingSoon, TrialExpired
from muster_local.demo.cast import Agency
from muster_local.demo.evidence import READ, Books, Delivery, Entry, Evidence, Term
from muster_local.demo.log import Fact
from muster_local.demo.proof import LINES, prove
from muster_local.demo.proof.deliveries import mails_arrived, one_delivery_per_intent, webhooks_verified
from muster_local.demo.proof.program import (
    everyone_enrolled,
    ledger_balances,
    one_term_and_invoice,
    seats_within_cap,
    trials_expired_once,
)
from muster_local.demo.proof.streams import effects_once, nothing_waits, streams_applied, streams_gapless
from muster_local.receiver import Message
from muster_notify.domain.rules import rules, types_on_request

START = datetime(2025, 8, 6, 14, tzinfo=UTC)
TRIAL_END = START + timedelta(days=60)
YEAR_END = datetime(2026, 8, 6, 14, tzinfo=UTC)
DOLLAR = Money(amount_minor=100, currency="USD")


def _facts(events: Sequence[tuple[Event, datetime]]) -> list[Fact]:
    """The events as a correct producer would have put them into the log."""
    last: dict[tuple[str, str], int] = {}
    facts = []
    for event, time in events:
        stream = (event.topic, event.agency_id)
        sequence = last[stream] = last.get(stream, 0) + 1
        envelope = Envelope(
            id=event_id(*stream, 1, sequence),
            source=source_of(event.topic),
            type=event.event_type,
            time=time,
            agency_id=event.agency_id,
            epoch=1,
            sequence=sequence,
            correlation_id="cor_1",
        )
        facts.append(Fact(event.topic, envelope, json.loads(event.model_dump_json())))
    return facts


def _seat(event: Callable[..., Event], number: int, **more: Any) -> Event:
    return event(agency_id="NASA", seat_id=f"seat_{number}", subject_ref=f"sub_{number}", **more)


def _events() -> list[tuple[Event, datetime]]:
    trial = {"agency_id": "NASA", "window_id": "win_1", "feature": "deep-research"}
    return [
        (
            AgencyEnrolled(
                agency_id="NASA",
                enrollment_id="enr_1",
                agency_name="NASA",
                seats=2,
                starts_at=START,
                ends_at=YEAR_END,
            ),
            START,
        ),
        (
            FeatureWindowOpened(
                **trial,
                mode="unlimited",
                starts_at=START,
                ends_at=TRIAL_END,
                mode_after="quota",
                monthly_quota_after=25,
            ),
            START,
        ),
        *_term("term_1", 1, START, YEAR_END),
        (_seat(SeatAssigned, 1), START),
        (_seat(SeatAssigned, 2), START),
        (_seat(SeatRevoked, 1, reason="requested"), START),
        (_seat(SeatAssigned, 3), START),
        *(
            (TrialEndingSoon(**trial, ends_at=TRIAL_END, days_left=days), TRIAL_END - timedelta(days=days))
            for days in (14, 7, 1)
        ),
        (TrialExpired(**trial, expired_at=TRIAL_END, mode_after="quota", monthly_quota_after=25), TRIAL_END),
        (
            RenewalDecided(
                agency_id="NASA",
                term_id="term_1",
                renewal_id="ren_1",
                decision="accepted",
                price=DOLLAR,
                next_starts_at=YEAR_END,
                next_ends_at=YEAR_END + timedelta(days=365),
                decided_at=YEAR_END - timedelta(days=50),
            ),
            YEAR_END - timedelta(days=50),
        ),
        *_term("term_2", 2, YEAR_END, YEAR_END + timedelta(days=365)),
        (
            InvoicePaid(
                agency_id="NASA",
                term_id="term_1",
                invoice_id="inv_term_1",
                payment_id="pay_1",
                amount=DOLLAR,
                paid_at=START,
            ),
            START,
        ),
    ]


def _term(term_id: str, number: int, starts_at: datetime, ends_at: datetime) -> list[tuple[Event, datetime]]:
    return [
        (
            TermStarted(
                agency_id="NASA",
                term_id=term_id,
                enrollment_id="enr_1",
                number=number,
                starts_at=starts_at,
                ends_at=ends_at,
                price=DOLLAR,
            ),
            starts_at,
        ),
        (
            InvoiceIssued(
                agency_id="NASA",
                term_id=term_id,
                invoice_id=f"inv_{term_id}",
                invoice_number=f"NASA-2025-0{number}",
                amount=DOLLAR,
                issued_at=starts_at,
                due_at=starts_at + timedelta(days=30),
            ),
            starts_at,
        ),
    ]


def _evidence(events: Sequence[tuple[Event, datetime]]) -> Evidence:
    """Evidence in which all that follows from the events has followed."""
    facts = _facts(events)
    last = {fact.stream: (1, fact.envelope.sequence) for fact in facts}
    deliveries = [
        Delivery(f"dlv_{number}_{rule}", fact.envelope.id, rule, channel, recipient, "delivered")
        for number, fact in enumerate(facts)
        for rule, channel, recipient in [
            *((rule.name, "email", rule.recipient) for rule in rules().for_event(fact.envelope.type)),
            *([] if fact.envelope.type in types_on_request() else [("webhook", "webhook", "whk_1")]),
        ]
    ]
    by_event = {fact.envelope.id: fact for fact in facts}
    return Evidence(
        agencies=[Agency("NASA", "NASA", "nasa.gov", 2, START, ())],
        commands_sent={"enrollment": 3},
        instants=frozenset(fact.envelope.time for fact in facts),
        facts=facts,
        books={
            service: Books(
                produced={stream: at for stream, at in last.items() if stream[0].split(".")[1] == service},
                applied={stream: at for stream, at in last.items() if stream[0] in READ[service]},
                outbox=0,
                parked=0,
                commands=3 if service == "enrollment" else 0,
                late=0,
            )
            for service in READ
        },
        terms=[Term("term_1", "enr_1", 1), Term("term_2", "enr_1", 2)],
        invoiced_terms=["term_1", "term_2"],
        ledger=[Entry(1, "USD", 100), Entry(1, "USD", -100)],
        seats_in_use={"NASA": 2},
        deliveries=deliveries,
        messages=[_message(d.id, by_event[d.event_id]) for d in deliveries if d.channel == "webhook"],
        mail_ids=[d.id for d in deliveries if d.channel == "email"],
    )


def _message(message_id: str, fact: Fact, *, verified: bool = True) -> Message:
    body = {"topic": fact.topic, "agency_id": fact.envelope.agency_id, "sequence": fact.envelope.sequence}
    return Message(id=message_id, verified=verified, raw=json.dumps(body))


@pytest.fixture
def sound() -> Evidence:
    return _evidence(_events())


def _without(evidence: Evidence, name: str) -> Evidence:
    """The evidence of a world in which an event never happened."""
    return _evidence([(event, time) for event, time in _events() if type(event).__name__ != name])


def _with(*more: tuple[Event, datetime]) -> Evidence:
    return _evidence([*_events(), *more])


def _books(evidence: Evidence, service: str, **changes: Any) -> Evidence:
    return replace(evidence, books={**evidence.books, service: replace(evidence.books[service], **changes)})


def test_sound_books_are_green(sound: Evidence) -> None:
    assert [line for line in prove(sound) if not line.ok] == []


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.__name__)
def test_where_there_is_nothing_no_line_is_green(line: Callable[[Evidence], Any]) -> None:
    nothing = replace(_evidence([]), books={}, ledger=[])
    assert not line(nothing).ok


def test_an_agency_that_is_not_enrolled(sound: Evidence) -> None:
    absent = Agency("GSA", "GSA", "gsa.gov", 1, START, ())
    assert not everyone_enrolled(replace(sound, agencies=[*sound.agencies, absent])).ok


def test_an_agency_with_other_seats_than_agreed(sound: Evidence) -> None:
    assert not everyone_enrolled(replace(sound, agencies=[replace(sound.agencies[0], seats=3)])).ok


def test_a_second_first_term(sound: Evidence) -> None:
    assert not one_term_and_invoice(_with(*_term("term_9", 1, START, YEAR_END))).ok
    assert not one_term_and_invoice(replace(sound, terms=[*sound.terms, Term("term_9", "enr_1", 1)])).ok


def test_a_term_without_invoice(sound: Evidence) -> None:
    assert not one_term_and_invoice(_without(sound, "InvoiceIssued")).ok
    assert not one_term_and_invoice(replace(sound, invoiced_terms=["term_1"])).ok


def test_a_second_term_that_nobody_accepted(sound: Evidence) -> None:
    assert not one_term_and_invoice(_without(sound, "RenewalDecided")).ok


def test_a_seat_above_the_cap() -> None:
    one_more = (_seat(SeatAssigned, 4), START)
    given_back = (_seat(SeatRevoked, 4, reason="requested"), START)
    assert not seats_within_cap(_with(one_more, given_back)).ok


def test_a_pool_that_counts_otherwise(sound: Evidence) -> None:
    assert not seats_within_cap(replace(sound, seats_in_use={"NASA": 1})).ok


@pytest.mark.parametrize("name", ["TrialExpired", "TrialEndingSoon"])
def test_a_trial_that_was_not_told_of(sound: Evidence, name: str) -> None:
    assert not trials_expired_once(_without(sound, name)).ok


def test_a_trial_that_expired_twice() -> None:
    again = next(event for event in _events() if isinstance(event[0], TrialExpired))
    assert not trials_expired_once(_with(again)).ok


def test_a_trial_that_expired_at_another_instant() -> None:
    events = [
        (event, time + timedelta(seconds=1) if isinstance(event, TrialExpired) else time) for event, time in _events()
    ]
    assert not trials_expired_once(_evidence(events)).ok


def test_a_trial_of_an_agency_that_has_left() -> None:
    left = AgencyWithdrawn(agency_id="NASA", enrollment_id="enr_1", reason="reorganized", withdrawn_at=START)
    assert not trials_expired_once(_with((left, START))).ok


def test_an_instant_at_which_the_clock_never_stood(sound: Evidence) -> None:
    assert not trials_expired_once(replace(sound, instants=sound.instants - {TRIAL_END})).ok


def test_a_deadline_handled_late(sound: Evidence) -> None:
    assert not trials_expired_once(_books(sound, "entitlements", late=1)).ok


def test_a_gap_in_the_log(sound: Evidence) -> None:
    assert not streams_gapless(replace(sound, facts=[*sound.facts[:6], *sound.facts[7:]])).ok


def test_an_event_out_of_order(sound: Evidence) -> None:
    seats = [fact for fact in sound.facts if fact.topic == "muster.entitlements.seat"]
    others = [fact for fact in sound.facts if fact not in seats]
    assert not streams_gapless(replace(sound, facts=[*others, seats[1], seats[0], *seats[2:]])).ok


def test_an_event_that_never_reached_the_log(sound: Evidence) -> None:
    assert not streams_gapless(replace(sound, facts=sound.facts[:-1])).ok


def test_an_event_that_was_sent_again_harms_nothing(sound: Evidence) -> None:
    assert streams_gapless(replace(sound, facts=[*sound.facts, sound.facts[0]])).ok
    assert effects_once(replace(sound, facts=[*sound.facts, sound.facts[0]])).ok


def test_a_service_that_is_behind(sound: Evidence) -> None:
    applied = dict(sound.books["notify"].applied)
    stream = next(iter(applied))
    assert not streams_applied(_books(sound, "notify", applied={**applied, stream: (1, applied[stream][1] - 1)})).ok
    del applied[stream]
    assert not streams_applied(_books(sound, "notify", applied=applied)).ok


def test_a_fact_that_came_twice_under_different_ids() -> None:
    assert not effects_once(_with((_seat(SeatAssigned, 3), START))).ok


@pytest.mark.parametrize("commands", [2, 4])
def test_a_command_that_was_not_carried_out_once(sound: Evidence, commands: int) -> None:
    assert not effects_once(_books(sound, "enrollment", commands=commands)).ok


def test_an_intent_without_delivery(sound: Evidence) -> None:
    assert not one_delivery_per_intent(replace(sound, deliveries=sound.deliveries[1:])).ok


def test_a_second_delivery_of_an_intent(sound: Evidence) -> None:
    again = replace(sound.deliveries[0], id="dlv_again")
    assert not one_delivery_per_intent(replace(sound, deliveries=[*sound.deliveries, again])).ok


def test_a_delivery_that_waits(sound: Evidence) -> None:
    waits = replace(sound.deliveries[0], state="pending")
    assert not one_delivery_per_intent(replace(sound, deliveries=[waits, *sound.deliveries[1:]])).ok


def test_a_signature_that_is_not_verified(sound: Evidence) -> None:
    forged = sound.messages[0].model_copy(update={"verified": False})
    assert not webhooks_verified(replace(sound, messages=[forged, *sound.messages[1:]])).ok


def test_a_message_that_never_came(sound: Evidence) -> None:
    assert not webhooks_verified(replace(sound, messages=sound.messages[1:])).ok


def test_messages_out_of_order(sound: Evidence) -> None:
    assert not webhooks_verified(replace(sound, messages=sound.messages[::-1])).ok


def test_an_e_mail_that_is_missing(sound: Evidence) -> None:
    assert not mails_arrived(replace(sound, mail_ids=sound.mail_ids[1:])).ok


def test_an_e_mail_that_nobody_sent(sound: Evidence) -> None:
    assert not mails_arrived(replace(sound, mail_ids=[*sound.mail_ids, "dlv_forged"])).ok


@pytest.mark.parametrize("left", ["outbox", "parked"])
def test_something_left_behind(sound: Evidence, left: str) -> None:
    assert not nothing_waits(_books(sound, "billing", **{left: 1})).ok


def test_a_ledger_that_does_not_balance(sound: Evidence) -> None:
    assert not ledger_balances(replace(sound, ledger=[Entry(1, "USD", 100), Entry(1, "USD", -99)])).ok
    across = [Entry(1, "USD", 100), Entry(2, "USD", -100)]
    assert not ledger_balances(replace(sound, ledger=across)).ok
