"""Starts terms, ends them, and cuts them short after a withdrawal."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from muster_billing import publishing
from muster_billing.domain import Tariff, Term, TermState, civil_day
from muster_billing.handlers.transitions import (
    END_TERM,
    OFFER_RENEWAL,
    START_TERM,
    complete_term,
    offer_renewal,
    open_term,
    schedule_end,
    start_term,
    void_unpaid_invoice,
    withdraw_renewal,
)
from muster_billing.repository.renewals import find_renewal_of_term
from muster_billing.repository.terms import find_live_term, find_term, save_term
from muster_contracts.billing import TermEndReason
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.scheduling.deadlines import Deadline, cancel, schedule


async def on_agency_enrolled(
    tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyEnrolled]]
) -> None:
    """Open an enrolled agency's first term, and start it now, or by a deadline if its start is later."""
    for event in received:
        enrolled = event.data
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
        if not await open_term(uow, term):
            continue
        if term.starts_at <= uow.now:
            await start_term(uow, term, event.envelope.id)
        else:
            schedule(uow, [Deadline(START_TERM, term.agency_id, term.id, term.starts_at)])


async def on_agency_withdrawn(zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyWithdrawn]]) -> None:
    """End the enrollment's term, void its invoice if unpaid, and close its renewal."""
    for event in received:
        withdrawn = event.data
        term = await _catch_up(uow, zone, withdrawn, event.envelope.id)
        if term is None:
            continue
        if term.state is TermState.SCHEDULED:
            # No event announced its start, so none announces its end.
            await save_term(uow.connection, term.cancel())
        else:
            ended_at = max(withdrawn.withdrawn_at, term.starts_at)
            await save_term(uow.connection, term.end(TermEndReason.WITHDRAWN, ended_at))
            uow.publish(
                publishing.term_ended(term, TermEndReason.WITHDRAWN, ended_at, renewed=False),
                time=ended_at,
                causation_id=event.envelope.id,
            )
        await void_unpaid_invoice(uow, term, event.envelope.id)
        await withdraw_renewal(uow, term)
        for kind in (START_TERM, OFFER_RENEWAL, END_TERM):
            cancel(uow, term.agency_id, kind, [term.id])


async def on_start_term_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Start scheduled terms."""
    for deadline in due:
        term = await find_term(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is TermState.SCHEDULED:
            await start_term(uow, term)


async def on_end_term_due(tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Complete a term, once its agency was offered the next one and has had its time to decide."""
    for deadline in due:
        term = await find_term(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is not TermState.RUNNING:
            continue
        renewal = await find_renewal_of_term(uow.connection, term) or await offer_renewal(uow, tariff, term)
        if renewal.is_open(uow.now):
            schedule_end(uow, term.agency_id, term.id, renewal.decide_by)
        else:
            await complete_term(uow, zone, term)


async def _catch_up(uow: UnitOfWork, zone: ZoneInfo, withdrawn: AgencyWithdrawn, cause: str) -> Term | None:
    """Catch up on every start and end that was due before a withdrawal. Returns the term that it cuts short, if any.

    So the books are the same whether the withdrawal is applied before or after the deadlines of the same instant.
    """
    while term := await find_live_term(uow.connection, withdrawn.agency_id, withdrawn.enrollment_id):
        if term.state is TermState.SCHEDULED and term.starts_at <= withdrawn.withdrawn_at:
            await start_term(uow, term, cause)
        elif term.state is TermState.RUNNING and term.ends_at <= withdrawn.withdrawn_at:
            await complete_term(uow, zone, term, cause)
        else:
            return term
    return None
