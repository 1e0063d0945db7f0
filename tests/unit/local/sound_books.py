"""Sound books of a year of one agency, for tests to spoil."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts import Envelope, Event, Money, event_id, source_of
from muster_contracts.billing import InvoiceIssued, InvoicePaid, RenewalDecided, TermStarted
from muster_contracts.enrollment import AgencyEnrolled
from muster_contracts.entitlements import (
    AgencyQuotaThresholdCrossed,
    CatalogRule,
    EndingSeats,
    FeatureWindowChanged,
    FeatureWindowExtended,
    FeatureWindowOpened,
    SeatActivated,
    SeatAssigned,
    SeatRevoked,
    SeatTrialExpired,
    SeatTrialsEndingSoon,
    TrialEndingSoon,
    TrialExpired,
)
from muster_entitlements.domain.catalog import Feature, Version, VersionState
from muster_entitlements.publishing.catalog import catalog_published
from muster_local.demo.cast import Agency
from muster_local.demo.evidence import READ, Books, Delivery, Entry, Evidence, Proposal, Term, UsageSum
from muster_local.demo.log import Fact
from muster_local.demo.new_features import AGENTS, CANVAS, Use
from muster_local.demo.witness import Access, Comparison
from muster_local.receiver import Message
from muster_notify.domain.rules import rules, types_on_request

START = datetime(2025, 8, 6, 14, tzinfo=UTC)
DAY = timedelta(days=1)
EXTENDED_AT = START + 30 * DAY
TRIAL_END = START + 60 * DAY
CATALOG_AT = datetime(2026, 2, 2, 14, tzinfo=UTC)
USED_AT = CATALOG_AT + DAY
SEAT_TRIAL_END = USED_AT + 30 * DAY
MONTH_END = datetime(2026, 3, 1, tzinfo=UTC)
YEAR_END = datetime(2026, 8, 6, 14, tzinfo=UTC)
DOLLAR = Money(amount_minor=100, currency="USD")


CATALOG = Version(
    number=2,
    state=VersionState.PUBLISHED,
    rule=CatalogRule.NOW,
    features=(Feature.model_validate(CANVAS), Feature.model_validate(AGENTS)),
    revision=1,
    created_at=CATALOG_AT,
    published_at=CATALOG_AT,
)

access = Access("allowed", "window_open", TRIAL_END, None)


def facts_of(events: Sequence[tuple[Event, datetime]]) -> list[Fact]:
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


def is_sent(fact: Fact) -> bool:
    """Whether a webhook for all events gets it."""
    return fact.topic in READ["notify"] and fact.envelope.type not in types_on_request()


def seat(event: Callable[..., Event], number: int, **more: Any) -> Event:
    return event(agency_id="NASA", seat_id=f"seat_{number}", subject_ref=f"sub_{number}", **more)


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
        (
            catalog_published(CATALOG, CATALOG_AT),
            CATALOG_AT,
        ),
        *(
            (
                FeatureWindowOpened(
                    agency_id="NASA",
                    window_id=f"win_{feature['key']}",
                    feature=feature["key"],
                    mode=feature["mode"],
                    starts_at=CATALOG_AT,
                    ends_at=YEAR_END,
                    mode_after="none",
                ),
                CATALOG_AT,
            )
            for feature in (CANVAS, AGENTS)
        ),
        (seat(SeatActivated, 3), USED_AT),
        *(
            (
                SeatTrialsEndingSoon(
                    agency_id="NASA",
                    window_id="win_canvas",
                    feature="canvas",
                    ending=[EndingSeats(days_left=days, seats=1)],
                ),
                SEAT_TRIAL_END.replace(hour=0) - days * DAY,
            )
            for days in (7, 1)
        ),
        (
            seat(
                SeatTrialExpired,
                3,
                window_id="win_canvas",
                feature="canvas",
                expired_at=SEAT_TRIAL_END,
                mode_after="none",
            ),
            SEAT_TRIAL_END,
        ),
        *(
            (
                AgencyQuotaThresholdCrossed(
                    agency_id="NASA",
                    feature="agents",
                    used=used,
                    quota=20,
                    threshold_percent=percent,
                    period_starts_at=CATALOG_AT,
                    period_ends_at=MONTH_END,
                ),
                USED_AT,
            )
            for used, percent in ((11, 50), (17, 80), (20, 100))
        ),
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


def use(amount: int, *, reported: bool = False, counted: bool = True, used: int | None = None) -> Use:
    return Use(USED_AT, "NASA", "agents", amount, reported, counted, used)


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
    """Evidence in which all that follows from the events has followed."""
    facts = facts_of(events)
    last = {fact.stream: (1, fact.envelope.sequence) for fact in facts}
    deliveries = [
        Delivery(f"dlv_{number}_{rule}", fact.envelope.id, rule, channel, recipient, "delivered")
        for number, fact in enumerate(facts)
        for rule, channel, recipient in [
            *((rule.name, "email", rule.recipient) for rule in rules().for_event(fact.envelope.type)),
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
        usage_sums=[UsageSum("NASA", "agents", CATALOG_AT, MONTH_END, 20)],
        uses=[
            use(9, used=9),
            use(2, reported=True),
            use(1, reported=True, counted=False),
            use(6, used=17),
            use(4, counted=False),
            use(3, used=20),
            use(1, counted=False),
        ],
        comparisons=[
            Comparison(at, "NASA", "sub_1", "deep-research", access, access)
            for at in {fact.envelope.time for fact in facts}
        ],
    )


def message(message_id: str, fact: Fact, *, verified: bool = True) -> Message:
    """What a webhook's receiver got of an event."""
    body = {"topic": fact.topic, "agency_id": fact.envelope.agency_id, "sequence": fact.envelope.sequence}
    return Message(id=message_id, verified=verified, raw=json.dumps(body))


def without(name: str) -> Evidence:
    """The evidence of a world in which an event never happened."""
    return evidence_of([(event, time) for event, time in sound_events() if type(event).__name__ != name])


def with_more(*more: tuple[Event, datetime]) -> Evidence:
    """The evidence where these events happened too."""
    return evidence_of([*sound_events(), *more])


def with_books(evidence: Evidence, service: str, **changes: Any) -> Evidence:
    """The evidence where a service's books say otherwise."""
    return replace(evidence, books={**evidence.books, service: replace(evidence.books[service], **changes)})
