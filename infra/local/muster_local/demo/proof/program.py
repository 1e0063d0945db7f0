"""Proves what the program promises: enrollments, terms, seats, trials, and money."""

from collections import Counter
from datetime import datetime, timedelta

from muster_local.demo.cast import END
from muster_local.demo.evidence import Evidence
from muster_local.demo.new_features import AGENTS, CANVAS, RESEARCH, RESEARCH_QUOTA
from muster_local.demo.proof.line import Line, conclude, differences, enrolled_at, first_occurrences, instant, named

_NOTICE_DAYS = (14, 7, 1)


def everyone_enrolled(evidence: Evidence) -> Line:
    """Each agency in the cast is enrolled with its agreed seats."""
    agreed = {agency.id: agency.seats for agency in evidence.agencies}
    found = {fact.envelope.agency_id: data["seats"] for fact, data in named(evidence, "AgencyEnrolled")}
    faults = [
        f"{agency_id}: {found.get(agency_id, 'no')} seats, not {agreed.get(agency_id, 'any')}"
        for agency_id in sorted(agreed.keys() | found.keys())
        if agreed.get(agency_id) != found.get(agency_id)
    ]
    return conclude(
        "Every agency enrolled, with the agreed seats",
        faults,
        f"{len(found)} agencies, {sum(found.values()):,} seats",
        found,
    )


def one_term_and_invoice(evidence: Evidence) -> Line:
    """A first term per enrollment, a second term per started renewal, an invoice per term; log and tables agree."""
    enrolled = {data["enrollment_id"] for _, data in named(evidence, "AgencyEnrolled")}
    first_term = {
        data["term_id"]: data["enrollment_id"] for _, data in named(evidence, "TermStarted") if data["number"] == 1
    }
    renewed = {
        first_term[data["term_id"]]
        for _, data in named(evidence, "RenewalDecided")
        if data["decision"] == "accepted" and instant(data["next_starts_at"]) <= END
    }
    due = Counter([(enrollment_id, 1) for enrollment_id in enrolled] + [(renewal, 2) for renewal in renewed])
    started = Counter((data["enrollment_id"], data["number"]) for _, data in named(evidence, "TermStarted"))
    kept = Counter((term.enrollment_id, term.number) for term in evidence.terms)
    term_ids = {data["term_id"] for _, data in named(evidence, "TermStarted")}
    invoiced = Counter(data["term_id"] for _, data in named(evidence, "InvoiceIssued"))
    faults = [
        *differences("term", due, started),
        *differences("row of term", due, kept),
        *differences("invoice of", Counter(term_ids), invoiced),
        *differences("row of invoice of", Counter(term_ids), Counter(evidence.invoiced_terms)),
    ]
    detail = f"{len(enrolled)} enrollments, {len(renewed)} renewals started, {invoiced.total()} invoices"
    return conclude("One term and one invoice per enrollment and renewal", faults, detail, enrolled)


def seats_within_cap(evidence: Evidence) -> Line:
    """Each agency's seats, replayed in order, never exceed its cap and end at its pool's count."""
    caps = {fact.envelope.agency_id: data["seats"] for fact, data in named(evidence, "AgencyEnrolled")}
    held: Counter[str] = Counter()
    highest: Counter[str] = Counter()
    faults = []
    for fact in first_occurrences(evidence.facts):
        agency_id = fact.envelope.agency_id
        held[agency_id] += {"SeatAssigned": 1, "SeatRevoked": -1}.get(fact.name, 0)
        highest[agency_id] = max(highest[agency_id], held[agency_id])
        if not 0 <= held[agency_id] <= caps.get(agency_id, 0):
            faults.append(
                f"{agency_id}: {held[agency_id]} seats held of {caps.get(agency_id, 0)} at {fact.envelope.id}"
            )
    faults += differences("seat in the pool of", +held, +Counter(evidence.seats_in_use))
    return conclude(
        "Seats never above the cap",
        faults,
        f"at most {highest.total():,} of {sum(caps.values()):,} held at once, {held.total():,} at the end",
        caps,
    )


def trials_expired_once(evidence: Evidence) -> Line:
    """Each trial has three notices and one expiry, on time and at clock stops, until its agency withdraws."""
    withdrawn = {fact.envelope.agency_id: fact.envelope.time for fact, _ in named(evidence, "AgencyWithdrawn")}
    extended = {data["window_id"]: instant(data["ends_at"]) for _, data in named(evidence, "FeatureWindowExtended")}
    due: Counter[tuple[str, str, datetime]] = Counter()
    trials = 0
    for fact, data in named(evidence, "FeatureWindowOpened"):
        if data["mode_after"] == "none":
            continue
        trials += 1
        ends_at = extended.get(data["window_id"], instant(data["ends_at"]))
        instants = [("expiry", ends_at)] + [(f"{d}-day notice", ends_at - timedelta(days=d)) for d in _NOTICE_DAYS]
        due.update(
            (data["window_id"], what, at)
            for what, at in instants
            if fact.envelope.agency_id not in withdrawn or at < withdrawn[fact.envelope.agency_id]
        )
    said = Counter(
        [(data["window_id"], "expiry", fact.envelope.time) for fact, data in named(evidence, "TrialExpired")]
        + [
            (data["window_id"], f"{data['days_left']}-day notice", fact.envelope.time)
            for fact, data in named(evidence, "TrialEndingSoon")
        ]
    )
    faults = differences("event", due, said)
    faults += [f"the clock never stopped at {at}" for at in sorted({at for _, _, at in due} - evidence.instants)]
    faults += [f"{service} handled {b.late} deadlines late" for service, b in evidence.books.items() if b.late]
    expired = sum(1 for _, what, _ in said if what == "expiry")
    return conclude(
        "Every trial announced 14, 7, and 1 days before its end, and expired once, on time",
        faults,
        f"{trials} trials, {expired} expired, none late",
        due,
    )


def catalog_reached_everyone(evidence: Evidence) -> Line:
    """Each agency enrolled when the catalog changed has the new terms and features, and was notified once."""
    due: Counter[tuple[str, str]] = Counter()
    for fact, _ in named(evidence, "FeatureCatalogPublished"):
        due.update(
            (agency_id, feature)
            for agency_id in enrolled_at(evidence, fact.envelope.time)
            for feature in (RESEARCH, CANVAS["key"], AGENTS["key"])
        )
    told = Counter(
        (fact.envelope.agency_id, RESEARCH)
        for fact, data in named(evidence, "FeatureWindowChanged")
        if (data["feature"], data["monthly_quota_after"]) == (RESEARCH, RESEARCH_QUOTA)
    )
    told.update(
        (fact.envelope.agency_id, data["feature"])
        for fact, data in named(evidence, "FeatureWindowOpened")
        if data["feature"] in (CANVAS["key"], AGENTS["key"])
    )
    faults = differences("change of the catalog for", due, told)
    agencies = {agency_id for agency_id, _ in told}
    detail = f"{len(agencies)} agencies with a quota of {RESEARCH_QUOTA} and 2 new features"
    return conclude("A change of the catalog reached every agency, once", faults, detail, due)


def ledger_balances(evidence: Evidence) -> Line:
    """Every transaction's entries sum to zero."""
    sums: Counter[tuple[int, str]] = Counter()
    for entry in evidence.ledger:
        sums[entry.transaction_id, entry.currency] += entry.amount_minor
    faults = [f"transaction {number}: {amount} {currency}" for (number, currency), amount in sums.items() if amount]
    turnover = sum(entry.amount_minor for entry in evidence.ledger if entry.amount_minor > 0)
    detail = f"{len(sums)} transactions, {turnover / 100:.2f} on each side"
    return conclude("Every ledger transaction sums to zero", faults, detail, sums)
