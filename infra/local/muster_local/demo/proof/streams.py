"""Proves what the log promises: every event in sequence, applied once, and nothing left waiting."""

from collections import Counter
from collections.abc import Mapping

from muster_contracts import BEFORE_FIRST, Position, topics
from muster_local.demo.evidence import READ, Evidence
from muster_local.demo.log import Stream
from muster_local.demo.proof.line import Line, conclude, differences, first_occurrences, unequal

# The fields that tell whether two events state the same fact, whatever their IDs. In the demo's year, each agency
# enrolls once, and each person gets one seat.
_SAME_FACT: Mapping[str, tuple[str, ...]] = {
    "AgencyEnrollmentSubmitted": (),
    "AtuRecorded": ("number",),
    "AtuLapsed": ("number",),
    "DataUseTermsAccepted": ("terms_version",),
    "AgencyEnrolled": (),
    "AgencyWithdrawn": (),
    "SeatAssigned": ("subject_ref",),
    "SeatActivated": ("subject_ref",),
    "SeatRevoked": ("subject_ref",),
    "FeatureWindowOpened": ("feature",),
    "FeatureWindowExtended": ("feature", "ends_at"),
    "TrialEndingSoon": ("feature", "days_left"),
    "TrialExpired": ("feature",),
    "SeatTrialExpired": ("feature", "subject_ref"),
    "AgencyQuotaThresholdCrossed": ("feature", "period_starts_at", "threshold_percent"),
    "TermStarted": ("number",),
    "InvoiceIssued": ("term_id",),
    "InvoicePaid": ("invoice_id",),
    "InvoiceVoided": ("invoice_id",),
    "PaymentOverdue": ("invoice_id", "level"),
    "RenewalOffered": ("term_id",),
    "RenewalDecided": ("renewal_id",),
    "TermEnded": ("term_id",),
}


def streams_gapless(evidence: Evidence) -> Line:
    """In the log, first occurrences have the sequences 1, 2, 3, … up to the producer's last."""
    last: dict[Stream, Position] = {}
    faults = []
    for fact in evidence.facts:
        before = last.get(fact.stream, BEFORE_FIRST)
        envelope = fact.envelope
        position = Position(envelope.epoch, envelope.sequence)
        if position <= before:
            continue
        if position != (before.epoch, before.sequence + 1) and not topics()[fact.topic].compacted:
            faults.append(f"{envelope.id} follows {before.sequence}")
        last[fact.stream] = position
    produced = {stream: position for books in evidence.books.values() for stream, position in books.produced.items()}
    faults += unequal("Kafka", produced, last)
    repeated = len(evidence.facts) - len(list(first_occurrences(evidence.facts)))
    return conclude(
        "Every stream gapless in Kafka",
        faults,
        f"{len(last)} streams, {len(evidence.facts) - repeated:,} events, {repeated} repeated",
        last,
    )


def streams_applied(evidence: Evidence) -> Line:
    """Each service applied every stream that it reads up to the last event."""
    produced = {stream: position for books in evidence.books.values() for stream, position in books.produced.items()}
    faults = []
    for service, books in evidence.books.items():
        read = {stream: position for stream, position in produced.items() if stream[0] in READ[service]}
        faults += unequal(service, read, books.applied)
    count = sum(len(books.applied) for books in evidence.books.values())
    return conclude("Every stream fully applied by every service that reads it", faults, f"{count} positions", produced)


def effects_once(evidence: Evidence) -> Line:
    """No fact occurs twice under different IDs, and each command was executed once, however often it was sent."""
    facts = Counter(
        (fact.envelope.agency_id, fact.name, *(data[field] for field in _SAME_FACT[fact.name]))
        for fact in first_occurrences(evidence.facts)
        if (data := fact.data) is not None and fact.name in _SAME_FACT
    )
    faults = [f"{count} × {' '.join(map(str, same))}" for same, count in facts.items() if count > 1]
    done = {service: books.commands for service, books in evidence.books.items()}
    faults += differences("command at", Counter(evidence.commands_sent), Counter(done))
    return conclude("Every effect once", faults, f"{len(facts):,} facts, {sum(done.values())} commands", facts)


def nothing_waits(evidence: Evidence) -> Line:
    faults = [
        f"{service}: {books.outbox} rows in its outbox" for service, books in evidence.books.items() if books.outbox
    ]
    faults += [f"{service}: {books.parked} parked" for service, books in evidence.books.items() if books.parked]
    return conclude("Outboxes empty, nothing parked", faults, f"{len(evidence.books)} services", evidence.books)
