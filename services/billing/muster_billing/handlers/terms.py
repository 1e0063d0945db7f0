"""Starts terms, ends them, and cuts them short after a withdrawal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from muster_billing import publishing
from muster_billing.domain import Tariff, Term, TermState, civil_day
from muster_billing.handlers.transitions import (
    END_ENROLLMENT,
    END_TERM,
    OFFER_RENEWAL,
    START_TERM,
    complete_term,
    is_leaving,
    offer_renewal,
    open_term,
    schedule_end,
    start_term,
    void_unpaid_invoice,
    withdraw_renewal,
)
from muster_billing.repository.renewals import find_renewal_of_term
from muster_billing.repository.terms import (
    find_live_term,
    find_term,
    has_term,
    list_terms_ending_after,
    list_unfinished_enrollments,
    save_term,
)
from muster_contracts.billing import TermEndReason
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.deadlines import Deadline, cancel, find_instant, schedule


async def on_agency_enrolled(
    tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyEnrolled]]
) -> None:
    """Open an enrolled agency's first term, and start it now, or by a deadline if its start is later.

    If an earlier enrollment has a term that is not over, the event of its withdrawal was lost: the new one ends it.
    """
    for event in received:
        enrolled = event.data
        if await has_term(uow.connection, enrolled.agency_id, enrolled.enrollment_id):
            continue
        enrolled_at, cause = event.envelope.time, event.envelope.id
        for earlier in await list_unfinished_enrollments(uow.connection, enrolled.agency_id, enrolled_at):
            await _end_earlier(uow, zone, _Ending(enrolled.agency_id, earlier, enrolled_at, cause))
        term = Term(
            id=new_id("term", uow.now),
            agency_id=enrolled.agency_id,
            enrollment_id=enrolled.enrollment_id,
            number=1,
            starts_at=enrolled.starts_at,
            ends_at=enrolled.ends_at,
            first_day=civil_day(enrolled.starts_at, zone),
            price=tariff.first_term,
        )
        await open_term(uow, term)
        if term.starts_at <= uow.now:
            await start_term(uow, term, event.envelope.id)
        else:
            schedule(uow, [Deadline(START_TERM, term.agency_id, term.id, term.starts_at)])


async def on_agency_withdrawn(zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyWithdrawn]]) -> None:
    """End the enrollment's term, void its invoice if unpaid, and close its renewal.

    While the facts are in doubt, this waits with the deadlines: a decision or a payment may be among the lost commands.
    """
    in_doubt = await hold.are_facts_in_doubt(uow.connection)
    for event in received:
        withdrawn, cause = event.data, event.envelope.id
        ending = _Ending(withdrawn.agency_id, withdrawn.enrollment_id, withdrawn.withdrawn_at, cause)
        if in_doubt:
            _put_off(uow, ending)
        else:
            await _end_enrollment(uow, zone, ending)
    if in_doubt:
        await uow.flush()  # a new enrollment in the same transaction looks for what was put off


async def on_start_term_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Start scheduled terms."""
    for deadline in due:
        term = await find_term(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is TermState.SCHEDULED:
            await start_term(uow, term)


async def on_end_term_due(tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Complete a term, once its agency was offered the next one and has had its time to decide.

    If the agency has withdrawn, the end of its enrollment completes it.
    """
    for deadline in due:
        term = await find_term(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is not TermState.RUNNING or await is_leaving(uow, term):
            continue
        renewal = await find_renewal_of_term(uow.connection, term) or await offer_renewal(uow, tariff, term)
        if renewal.is_open(uow.now):
            schedule_end(uow, term.agency_id, term.id, renewal.decide_by)
        else:
            await complete_term(uow, zone, term)


async def on_end_enrollment_due(zone: ZoneInfo, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """End enrollments whose agencies withdrew while the facts were in doubt."""
    for deadline in due:
        await _end_enrollment(uow, zone, _Ending(deadline.agency_id, deadline.subject, deadline.due_at))


@dataclass(frozen=True, slots=True)
class _Ending:
    """The end of an enrollment whose term may not be over, and the ID of the event that caused it, if any."""

    agency_id: str
    enrollment_id: str
    at: datetime
    cause: str | None = None


def _put_off(uow: UnitOfWork, ending: _Ending) -> None:
    """Let the enrollment end as soon as deadlines are released."""
    schedule(uow, [Deadline(END_ENROLLMENT, ending.agency_id, ending.enrollment_id, ending.at)])


async def _end_enrollment(uow: UnitOfWork, zone: ZoneInfo, ending: _Ending) -> None:
    """Cut the live term short, and void the unpaid invoices of all terms that were not over.

    If the event is late, the deadlines may have completed such a term already.
    """
    await _end_live_term(uow, zone, ending)
    for unfinished in await list_terms_ending_after(uow.connection, ending.agency_id, ending.enrollment_id, ending.at):
        await void_unpaid_invoice(uow, unfinished, ending.cause)


async def _end_earlier(uow: UnitOfWork, zone: ZoneInfo, ending: _Ending) -> None:
    """End an earlier enrollment: when its agency withdrew, if that was put off.

    An agency has only one live term, so the term ends even while the facts are in doubt. Only the invoices wait then.
    """
    put_off_to = await find_instant(uow.connection, END_ENROLLMENT, ending.agency_id, ending.enrollment_id)
    ending = replace(ending, at=put_off_to or ending.at)
    if await hold.are_facts_in_doubt(uow.connection):
        await _end_live_term(uow, zone, ending)
        _put_off(uow, ending)
    else:
        await _end_enrollment(uow, zone, ending)


async def _end_live_term(uow: UnitOfWork, zone: ZoneInfo, ending: _Ending) -> None:
    term = await _catch_up(uow, zone, ending)
    if term is not None:
        await _cut_short(uow, term, ending)


async def _catch_up(uow: UnitOfWork, zone: ZoneInfo, ending: _Ending) -> Term | None:
    """Catch up on every start and end of terms that was due before the end. Returns the live term, if there is one.

    So the books are the same whether the end is applied before or after the deadlines of the same instant.
    """
    while (term := await find_live_term(uow.connection, ending.agency_id)) and (
        term.enrollment_id == ending.enrollment_id
    ):
        if term.state is TermState.SCHEDULED and term.starts_at <= ending.at:
            await start_term(uow, term, ending.cause)
        elif term.state is TermState.RUNNING and term.ends_at <= ending.at:
            await complete_term(uow, zone, term, ending.cause)
        else:
            return term
    return None


async def _cut_short(uow: UnitOfWork, term: Term, ending: _Ending) -> None:
    if term.state is TermState.SCHEDULED:
        # No event announced its start, so none announces its end.
        await save_term(uow.connection, term.cancel())
    else:
        ended_at = max(ending.at, term.starts_at)
        await save_term(uow.connection, term.end(TermEndReason.WITHDRAWN, ended_at))
        uow.publish(
            publishing.term_ended(term, TermEndReason.WITHDRAWN, ended_at, renewed=False),
            time=ended_at,
            causation_id=ending.cause,
        )
    await withdraw_renewal(uow, term)
    for kind in (START_TERM, OFFER_RENEWAL, END_TERM):
        cancel(uow, term.agency_id, kind, [term.id])
