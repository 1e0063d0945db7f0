"""Correct books for one agency's year, for tests to corrupt."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from muster_contracts import Envelope, Event, Money, Position, event_id, source_of
from muster_contracts.billing import InvoiceIssued, InvoicePaid, RenewalDecided, TermStarted
from muster_contracts.enrollment import AgencyEnrolled
from muster_contracts.entitlements import (
    FeatureWindowChanged,
    FeatureWindowExtended,
    FeatureWindowOpened,
    SeatAssigned,
    SeatRevoked,
    TrialEndingSoon,
    TrialExpired,
)
from muster_local.demo.cast import Agency
from muster_local.demo.evidence import READ, Books, Delivery, Entry, Evidence, Proposal, Term
from muster_local.demo.log import Fact
from muster_local.demo.proof.deliveries import mail_rules
from muster_local.demo.witness import Access, Comparison
from muster_local.receiver import Message
from muster_notify.domain.rules import types_on_request
from tests.unit.local.feature_books import (
    CATALOG_AT,
    DAY,
    EXTENDED_AT,
    START,
    TRIAL_END,
    USAGE_SUM,
    USES,
    YEAR_END,
    new_features,
    seat,
)

DOLLAR = Money(amount_minor=100, currency="USD")


access = Access("allowed", "window_open", TRIAL_END, None)


def facts_of(events: Sequence[tuple[Event, datetime]]) -> list[Fact]:
    """The events as a correct producer would have written them to the log."""
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


def is_sent(fact: Fact) -> bool:
    """Whether a webhook for all events receives it."""
    return fact.topic in READ["notify"] and fact.envelope.type not in types_on_request()


def sound_events() -> list[tuple[Event, datetime]]:
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
                ends_at=START + 40 * DAY,
                mode_after="quota",
                monthly_quota_after=25,
            ),
            START,
        ),
        (FeatureWindowExtended(**trial, previous_ends_at=START + 40 * DAY, ends_at=TRIAL_END), EXTENDED_AT),
        *term("term_1", 1, START, YEAR_END),
        (seat(SeatAssigned, 1), START),
        (seat(SeatAssigned, 2), START),
        (seat(SeatRevoked, 1, reason="requested"), START),
        (seat(SeatAssigned, 3), START),
        *(
            (TrialEndingSoon(**trial, ends_at=TRIAL_END, days_left=days), TRIAL_END - timedelta(days=days))
            for days in (14, 7, 1)
        ),
        (TrialExpired(**trial, expired_at=TRIAL_END, mode_after="quota", monthly_quota_after=25), TRIAL_END),
        *new_features(),
        (
            FeatureWindowChanged(
                **trial,
                mode="unlimited",
                starts_at=START,
                ends_at=TRIAL_END,
                mode_after="quota",
                monthly_quota_after=50,
            ),
            CATALOG_AT,
        ),
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
        *term("term_2", 2, YEAR_END, YEAR_END + timedelta(days=365)),
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


def term(term_id: str, number: int, starts_at: datetime, ends_at: datetime) -> list[tuple[Event, datetime]]:
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


def evidence_of(events: Sequence[tuple[Event, datetime]]) -> Evidence:
    """Evidence in which every effect of the events has happened."""
    facts = facts_of(events)
    last = {fact.stream: Position(1, fact.envelope.sequence) for fact in facts}
    deliveries = [
        Delivery(f"dlv_{number}_{rule}", fact.envelope.id, rule, channel, recipient, "delivered")
        for number, fact in enumerate(facts)
        for rule, channel, recipient in [
            *((rule.name, "email", rule.recipient) for rule in mail_rules(fact)),
            *([("webhook", "webhook", "whk_1")] if is_sent(fact) else []),
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
        messages=[message(d.id, by_event[d.event_id]) for d in deliveries if d.channel == "webhook"],
        mail_ids=[d.id for d in deliveries if d.channel == "email"],
        proposals=[
            Proposal(
                agency_id="NASA",
                route="POST /v1/agencies/{agency_id}/windows/{window_id}/extension",
                path="/v1/agencies/NASA/windows/win_1/extension",
                state="approved",
                proposed_by="ann",
                decided_by="bob",
                decided_at=EXTENDED_AT,
            )
        ],
        usage_sums=[USAGE_SUM],
        uses=USES,
        comparisons=[
            Comparison(at, "NASA", "sub_1", "deep-research", access, access)
            for at in {fact.envelope.time for fact in facts}
        ],
    )


def message(message_id: str, fact: Fact, *, verified: bool = True) -> Message:
    """What a webhook's receiver got for an event."""
    body = {"topic": fact.topic, "agency_id": fact.envelope.agency_id, "sequence": fact.envelope.sequence}
    return Message(id=message_id, verified=verified, raw=json.dumps(body))


def without(name: str) -> Evidence:
    """The evidence of a world in which an event never happened."""
    return evidence_of([(event, time) for event, time in sound_events() if type(event).__name__ != name])


def with_more(*more: tuple[Event, datetime]) -> Evidence:
    """The evidence of a world in which these events happened too."""
    return evidence_of([*sound_events(), *more])


def with_books(evidence: Evidence, service: str, **changes: Any) -> Evidence:
    """The evidence with changes to one service's books."""
    return replace(evidence, books={**evidence.books, service: replace(evidence.books[service], **changes)})
