"""The accounts set against one another: pure functions, one a kind of difference."""

from collections.abc import Iterable, Iterator, Mapping

from muster_contracts import topics
from muster_local.reconcile.books import Books, Outlook, Position, Stream, TopicEnds
from muster_local.reconcile.difference import Difference


def compare(before: Books, ends: TopicEnds, after: Books) -> list[Difference]:
    """Every difference between the services, and between them and the topics.

    `ends` is what the topics said, which were read between `before` and `after`: what is given out or applied
    meanwhile can be ahead of one of them, and never of both.
    """
    log = ends.positions
    return sorted(
        {
            *_terms(after),
            *_outlooks(after),
            *_pools(after),
            *_trials(after),
            *_directory(after),
            *_people(ends, after),
            *_lost(before, log),
            *_restored(log, after),
            *_behind(log, after),
        }
    )


def _terms(books: Books) -> Iterator[Difference]:
    """A term belongs to an open enrolment, and an open enrolment has a term."""
    covered = {term.enrollment_id for term in books.terms}
    for term in books.terms:
        enrollment = books.enrollments.get(term.agency_id)
        if enrollment is None or enrollment.id != term.enrollment_id or not enrollment.open:
            yield Difference(
                "a term without an enrolment",
                term.agency_id,
                f"billing's term {term.id} runs; enrolment {term.enrollment_id} does not",
                "see whether billing has applied all (muster streams --behind); then void the invoice and end the term",
            )
    for agency_id, enrollment in books.enrollments.items():
        if enrollment.open and enrollment.id not in covered:
            yield Difference(
                "an enrolment without a term",
                agency_id,
                f"enrolment {enrollment.id} is {enrollment.state}; billing has no term for it",
                "see whether billing has applied all (muster streams --behind) and what is parked there",
            )


def _outlooks(books: Books) -> Iterator[Difference]:
    """Entitlements goes by what billing has told of each term."""
    for (agency_id, term_id), decided in books.decided.items():
        understood = books.understood.get((agency_id, term_id))
        if understood != decided:
            yield Difference(
                "a term that entitlements sees otherwise",
                agency_id,
                f"billing's term {term_id} {_told(decided)}; entitlements: {_told(understood)}",
                "see whether entitlements has applied all of muster.billing.term (muster streams --behind); after a "
                "restore follow the runbook restore.md",
            )


def _told(outlook: Outlook | None) -> str:
    if outlook is None:
        return "not known"
    renewed = f", renewed to {outlook.renewed_to:%Y-%m-%d}" if outlook.renewed_to else ""
    return f"of {outlook.enrollment_id} {'has ended' if outlook.ended else 'goes on'}{renewed}"


def _pools(books: Books) -> Iterator[Difference]:
    """A pool counts its seats rightly, and knows how its agency stands."""
    for agency_id, pool in books.pools.items():
        if pool.in_use != pool.held:
            yield Difference(
                "a projection that is off",
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
                f"{pool.held} seats are held; enrolment {pool.enrollment_id} is {state}",
                "see whether entitlements has applied AgencyWithdrawn and TermEnded (muster streams --behind, muster "
                "parked list)",
            )
        # Of an enrolment that is not the agency's latest, only that it is over is known.
        if pool.standing not in (("withdrawn", "ended") if state == "missing" else (state,)):
            yield Difference(
                "a standing that is not known",
                agency_id,
                f"entitlements holds the agency for {pool.standing}; its enrolment is {state}",
                "see whether entitlements has applied all of muster.enrollment.agency and muster.billing.term (muster "
                "streams --behind)",
            )


def _trials(books: Books) -> Iterator[Difference]:
    for trial in books.trials:
        if not trial.scheduled:
            yield Difference(
                "a window without expiry",
                trial.agency_id,
                f"the trial of {trial.feature} ({trial.window_id}) is open and nothing will close it",
                "this is a defect: keep the row and its audit, tell the developers, and watch the window's end",
            )


def _directory(books: Books) -> Iterator[Difference]:
    remedy = "muster rebuild notify.directory, then with --swap"
    for agency_id, reference in books.contacts - books.directory:
        yield Difference("a contact that notify does not know", agency_id, reference, remedy, reference)
    for agency_id, reference in books.directory - books.contacts:
        yield Difference("a contact that enrollment does not know", agency_id, reference, remedy, reference)


def _people(ends: TopicEnds, books: Books) -> Iterator[Difference]:
    """Notify knows nobody without a seat, and everybody whom it was told of; an import may tell of nobody."""
    swap = "muster rebuild notify.directory, then with --swap"
    for agency_id, reference in books.people - books.holders:
        told = (agency_id, reference) in ends.people
        yield Difference(
            "a person who was erased and is still there",
            agency_id,
            f"notify's directory has {reference}, who holds no seat",
            f"the topic has no erasure of {reference}: this is a defect, tell the developers" if told else swap,
            reference,
        )
    for agency_id, reference in (ends.people & books.holders) - books.people:
        found = f"{reference} holds a seat, and notify's directory does not have them"
        yield Difference("a person whom notify does not know", agency_id, found, swap, reference)


def _lost(before: Books, log: Mapping[Stream, Position]) -> Iterator[Difference]:
    """What a service has given out is on the topic or waits in its outbox; what one has applied is on the topic."""
    remedy = "Kafka has lost data: restore the topic from a replica or mirror before anything reads on"
    for service, streams in before.streams.items():
        told = [("has given out", stream, given) for stream, given in streams.produced.items()]
        told += [("has applied", stream, applied) for stream, applied in streams.applied.items()]
        for what, stream, position in told:
            topic, agency_id = stream
            if what == "has given out" and (stream in streams.waiting or position[0] > log.get(stream, position)[0]):
                continue  # it is on its way, or the epoch was raised and nothing has followed yet
            if log.get(stream, (0, 0)) < position and not topics()[topic].compacted:
                end = _text(log.get(stream, (0, 0)))
                found = f"{service} {what} {topic} up to {_text(position)}; the topic ends at {end}"
                yield Difference("events that the topic lacks", agency_id, found, remedy)


def _restored(log: Mapping[Stream, Position], after: Books) -> Iterator[Difference]:
    """A topic never goes further than its producer has given out, unless the producer was put back."""
    for (topic, agency_id), there in log.items():
        owner = topics()[topic].owner
        given = after.streams[owner].produced.get((topic, agency_id), (0, 0))
        if there > given:
            yield Difference(
                "a producer that was restored",
                agency_id,
                f"{topic} goes up to {_text(there)}; {owner} has given out {_text(given)}",
                f"follow the runbook restore.md: muster up --maintenance {owner}; muster streams epoch raise {owner}",
            )


def _behind(log: Mapping[Stream, Position], after: Books) -> Iterator[Difference]:
    """What is on a topic has been applied by each of its readers."""
    for service, streams in after.streams.items():
        read = {stream for stream in log if service in topics()[stream[0]].readers}
        for stream in read | streams.parked.keys():
            topic, agency_id = stream
            applied, there = streams.applied.get(stream, (0, 0)), log.get(stream, (0, 0))
            if stream in streams.parked:
                yield Difference(
                    "a parked stream",
                    agency_id,
                    f"{service} stands at {_text(applied)} of {topic}: {streams.parked[stream]}",
                    f"muster parked show {topic} {agency_id} --service {service}",
                )
            elif applied < there:
                yield Difference(
                    "a reader that is behind",
                    agency_id,
                    f"{service} has applied {topic} up to {_text(applied)} of {_text(there)}",
                    "follow the runbook consumer-behind.md; after a restore, restore.md",
                )


def persisting(first: Iterable[Difference], second: Iterable[Difference]) -> list[Difference]:
    """Those of the second look that the first one saw too: what was merely under way is gone from one of them."""
    seen = {(difference.what, difference.agency_id, difference.subject) for difference in first}
    return [each for each in second if (each.what, each.agency_id, each.subject) in seen]


def _text(position: Position) -> str:
    return f"{position[0]}/{position[1]}"
