"""Compares the services' tables with each other and with the topics: one pure function per kind of difference."""

from collections.abc import Iterable, Iterator, Mapping

from muster_contracts.entitlements import SeatRevoked
from muster_operator.reconcile.books import Books, Outlook, TopicEnds
from muster_operator.reconcile.difference import Difference
from muster_operator.reconcile.streams import NOT_PUBLISHED, Streams, not_applied, not_on_topic

_SWAP = "muster rebuild notify.directory, then with --swap"


def compare(before: Mapping[str, Streams], ends: TopicEnds, after: Books) -> list[Difference]:
    """Every difference between the services, and between them and the topics.

    `ends` must be read between `before` and `after`: sequences assigned or applied in the meantime can be ahead of one
    of them, but never of both.
    """
    return sorted(
        {
            *_terms(after),
            *_payments(ends, after),
            *_outlooks(after),
            *_pools(after),
            *_trials(after),
            *_directory(ends, after),
            *_people(ends, after),
            *_seats(ends, after),
            *_streams(before, ends, after),
        }
    )


def _terms(books: Books) -> Iterator[Difference]:
    """A term must belong to an open enrollment, and an open enrollment must have a term."""
    covered = {term.enrollment_id for term in books.terms}
    for term in books.terms:
        enrollment = books.enrollments.get(term.agency_id)
        if enrollment is None or enrollment.id != term.enrollment_id or not enrollment.open:
            yield Difference(
                "a term without an enrollment",
                term.agency_id,
                f"billing's term {term.id} runs; enrollment {term.enrollment_id} does not",
                "check whether billing is behind or parked the stream (muster streams --behind, muster parked list), "
                "or its deadlines are held (muster deadlines list): a withdrawal then takes effect when you release "
                "them; otherwise the agency's next enrollment ends the term",
            )
    for agency_id, enrollment in books.enrollments.items():
        if enrollment.open and enrollment.id not in covered:
            yield Difference(
                "an enrollment without a term",
                agency_id,
                f"enrollment {enrollment.id} is {enrollment.state}; billing has no term for it",
                "check whether billing is behind or parked the stream (muster streams --behind, muster parked list)",
            )


def _payments(ends: TopicEnds, books: Books) -> Iterator[Difference]:
    """An invoice whose payment was published must be paid: billing may have lost the command's commit."""
    for agency_id, invoice_id in ends.paid & books.unpaid.keys():
        state = books.unpaid[agency_id, invoice_id]
        again = f"record the payment again: POST /v1/agencies/{agency_id}/invoices/{invoice_id}/payments"
        settle = "billing takes no payment for it anymore: settle the payment with the agency, outside Muster"
        yield Difference(
            "a payment that billing does not know",
            agency_id,
            f"invoice {invoice_id} is {state} in billing; its payment is on the topic",
            again if state == "issued" else settle,
            invoice_id,
        )


def _outlooks(books: Books) -> Iterator[Difference]:
    """Entitlements must agree with billing about each term."""
    for (agency_id, term_id), decided in books.decided.items():
        understood = books.understood.get((agency_id, term_id))
        if understood != decided:
            yield Difference(
                "a term that entitlements sees differently",
                agency_id,
                f"billing's term {term_id} {_told(decided)}; entitlements: {_told(understood)}",
                "check whether entitlements is behind on muster.billing.term (muster streams --behind); after a "
                "restore, follow the runbook restore.md",
            )


def _told(outlook: Outlook | None) -> str:
    if outlook is None:
        return "unknown"
    renewed = f", renewed to {outlook.renewed_to:%Y-%m-%d}" if outlook.renewed_to else ""
    return f"of {outlook.enrollment_id} {'has ended' if outlook.ended else 'continues'}{renewed}"


def _pools(books: Books) -> Iterator[Difference]:
    """A pool's count must match its seats, and its standing the agency's."""
    for agency_id, pool in books.pools.items():
        if pool.in_use != pool.held:
            yield Difference(
                "a projection that has drifted",
                agency_id,
                f"the pool counts {pool.in_use} seats in use; {pool.held} are held",
                "muster rebuild entitlements.seats-in-use, then with --swap",
            )
        enrollment = books.enrollments.get(agency_id)
        state = "missing" if enrollment is None or enrollment.id != pool.enrollment_id else enrollment.state
        if state in ("withdrawn", "ended", "missing") and pool.held:
            yield Difference(
                "seats of an agency that is not enrolled",
                agency_id,
                f"{pool.held} seats are held; enrollment {pool.enrollment_id} is {state}",
                "check whether entitlements has applied AgencyWithdrawn and TermEnded (muster streams --behind, muster "
                "parked list)",
            )
        # If the pool's enrollment is not the agency's latest, all we know is that it has ended.
        if pool.standing not in (("withdrawn", "ended") if state == "missing" else (state,)):
            yield Difference(
                "an unknown standing",
                agency_id,
                f"in entitlements the agency is {pool.standing}; its enrollment is {state}",
                "check whether entitlements is behind on muster.enrollment.agency or muster.billing.term (muster "
                "streams --behind)",
            )


def _trials(books: Books) -> Iterator[Difference]:
    for trial in books.trials:
        if not trial.scheduled:
            yield Difference(
                "a window without expiry",
                trial.agency_id,
                f"the trial of {trial.feature} ({trial.window_id}) is open and nothing will close it",
                "report this defect to the developers, keep the row and its audit, and watch the window's end",
            )


def _directory(ends: TopicEnds, books: Books) -> Iterator[Difference]:
    for agency_id, reference in books.contacts - books.directory:
        yield Difference("a contact that notify does not know", agency_id, reference, _SWAP, reference)
    for agency_id, reference in books.directory - books.contacts:
        told = (agency_id, reference) in ends.people
        remedy = _erase(agency_id, reference) if told else _SWAP
        yield Difference("a contact that enrollment does not know", agency_id, reference, remedy, reference)


def _erase(agency_id: str, reference: str) -> str:
    return (
        "after a restore, let the callers repeat their commands; if this remains, "
        f"muster erase-lost {agency_id} {reference} --reason …; otherwise, report this defect to the developers"
    )


def _seats(ends: TopicEnds, books: Books) -> Iterator[Difference]:
    """Entitlements must have the changes of seats that it published. A revocation is permanent."""
    waiting = books.streams["entitlements"].waiting
    for (agency_id, seat_id), change in ends.lost:
        # Of the other changes, a later one may be on its way.
        if change == "revocation" or (SeatRevoked.topic, agency_id) not in waiting:
            path = f"POST /v1/agencies/{agency_id}/seats/{seat_id}/{change}"
            found, remedy = f"{seat_id}: the topic has its {change}", f"let the agency repeat it: {path}"
            yield Difference(f"a seat whose {change} was lost", agency_id, found, remedy, seat_id)


def _people(ends: TopicEnds, books: Books) -> Iterator[Difference]:
    """Notify must know nobody without a seat, and everybody who is on the directory topic.

    An import may publish nobody.
    """
    for agency_id, reference in books.people - books.holders:
        told = (agency_id, reference) in ends.people
        yield Difference(
            "a person who was erased and is still there",
            agency_id,
            f"notify's directory has {reference}, who holds no seat",
            _erase(agency_id, reference) if told else _SWAP,
            reference,
        )
    for agency_id, reference in (ends.people & books.holders) - books.people:
        found = f"{reference} holds a seat, but is not in notify's directory"
        yield Difference("a person whom notify does not know", agency_id, found, _SWAP, reference)


def _streams(before: Mapping[str, Streams], ends: TopicEnds, after: Books) -> Iterator[Difference]:
    """The differences between streams, except events that are on their way in an outbox."""
    missing = [*not_on_topic(before, ends.streams, after.streams), *not_applied(ends.streams, after.streams)]
    for each in missing:
        if each.what != NOT_PUBLISHED:
            found = f"{each.service}: {each.topic}, sequences: {each.sequences}"
            reason = f"; {each.reason}" if each.reason else ""
            yield Difference(each.what, each.agency_id, found + reason, each.remedy)


def persisting(first: Iterable[Difference], second: Iterable[Difference]) -> list[Difference]:
    """The differences that both checks found; work in progress shows up in only one of them."""
    seen = {(difference.what, difference.agency_id, difference.subject) for difference in first}
    return [each for each in second if (each.what, each.agency_id, each.subject) in seen]
