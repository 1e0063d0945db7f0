"""The steps that a term, its invoice and its renewal go through, whatever sets them off.

`cause` is the id of the event that did; a deadline has none.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from muster_billing import ledger, publishing, repository
from muster_billing.domain import Invoice, InvoiceState, Issuance, OverdueNotice, Renewal, RenewalState, Tariff, Term
from muster_contracts.billing import TermEndReason
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.scheduling.deadlines import Deadline, cancel, schedule

# Kinds of deadlines. The subject of an overdue notice is an invoice, that of all others a term.
START_TERM = "start_term"
OFFER_RENEWAL = "offer_renewal"
TELL_OVERDUE = "tell_overdue"
END_TERM = "end_term"

WITHDRAWN = "agency_withdrawn"


async def add(uow: UnitOfWork, term: Term) -> bool:
    """Add a term with its draft invoice; False when the enrollment has that term already."""
    if not await repository.add_term(uow.connection, term):
        return False
    invoice = Invoice(
        id=new_id("inv", uow.now),
        agency_id=term.agency_id,
        term_id=term.id,
        fiscal_year=term.fiscal_year,
        amount=term.price,
    )
    await repository.add_invoice(uow.connection, invoice)
    return True


async def start(uow: UnitOfWork, term: Term, cause: str | None = None) -> None:
    """Start a term, set its deadlines and issue its invoice."""
    await repository.save_term(uow.connection, term.start())
    uow.publish(publishing.term_started(term), time=term.starts_at, causation_id=cause)
    schedule(
        uow,
        [
            Deadline(OFFER_RENEWAL, term.agency_id, term.id, term.offer_at),
            Deadline(END_TERM, term.agency_id, term.id, term.ends_at),
        ],
    )
    await _issue(uow, term, cause)


async def _issue(uow: UnitOfWork, term: Term, cause: str | None) -> None:
    draft = await repository.invoice_of_term(uow.connection, term)
    ordinal = await repository.next_ordinal(uow.connection, draft.agency_id, draft.fiscal_year)
    issuance = Issuance.at(uow.now, ordinal)
    invoice = draft.issue(issuance)
    booked = repository.book(ledger.invoice_issued(invoice), uow.now)
    await writes.execute(uow.connection, repository.save_invoice(invoice), booked)
    schedule_notice(uow, invoice.agency_id, invoice.id, invoice.next_notice)
    uow.publish(publishing.invoice_issued(invoice, issuance), causation_id=cause)


def schedule_notice(uow: UnitOfWork, agency_id: str, invoice_id: str, notice: OverdueNotice | None) -> None:
    if notice:
        schedule(uow, [Deadline(TELL_OVERDUE, agency_id, invoice_id, notice.tell_at)])


async def offer(uow: UnitOfWork, tariff: Tariff, term: Term) -> Renewal:
    """Offer a further term. The event has the time at which that is really done: the time to decide counts from it."""
    renewal = Renewal.offer(new_id("ren", uow.now), term, tariff.renewal, uow.now)
    await repository.add_renewal(uow.connection, renewal)
    uow.publish(publishing.renewal_offered(renewal))
    return renewal


def schedule_end(uow: UnitOfWork, agency_id: str, term_id: str, at: datetime) -> None:
    schedule(uow, [Deadline(END_TERM, agency_id, term_id, at)])


async def complete(uow: UnitOfWork, zone: ZoneInfo, term: Term, cause: str | None = None) -> None:
    """End a term at its end. An offer without an answer lapses: nothing is decided for the agency."""
    renewal = await repository.renewal_of_term(uow.connection, term)
    renewed = renewal is not None and renewal.state is RenewalState.ACCEPTED
    await repository.save_term(uow.connection, term.end(TermEndReason.COMPLETED, term.ends_at))
    for kind in (OFFER_RENEWAL, END_TERM):
        cancel(uow, term.agency_id, kind, [term.id])
    uow.publish(
        publishing.term_ended(term, TermEndReason.COMPLETED, term.ends_at, renewed=renewed),
        time=term.ends_at,
        causation_id=cause,
    )
    if renewal is None:
        return
    if renewal.state is RenewalState.OFFERED:
        await repository.save_renewal(uow.connection, renewal.close(RenewalState.LAPSED))
    if renewed:
        following = term.followed_by(new_id("term", uow.now), renewal, zone)
        if await add(uow, following):
            await start(uow, following, cause)


async def void_unpaid(uow: UnitOfWork, term: Term, cause: str) -> None:
    invoice = await repository.invoice_of_term(uow.connection, term)
    if invoice.state not in (InvoiceState.DRAFT, InvoiceState.ISSUED):
        return
    await writes.execute(uow.connection, repository.save_invoice(invoice.void(WITHDRAWN, uow.now)))
    cancel(uow, invoice.agency_id, TELL_OVERDUE, [invoice.id])
    # A draft was told to nobody and booked nowhere.
    if invoice.state is InvoiceState.ISSUED:
        await writes.execute(uow.connection, repository.book(ledger.invoice_voided(invoice), uow.now))
        uow.publish(publishing.invoice_voided(invoice, WITHDRAWN, uow.now), causation_id=cause)


async def close_renewal(uow: UnitOfWork, term: Term) -> None:
    renewal = await repository.renewal_of_term(uow.connection, term)
    if renewal is not None and renewal.state in (RenewalState.OFFERED, RenewalState.ACCEPTED):
        await repository.save_renewal(uow.connection, renewal.close(RenewalState.WITHDRAWN))
