"""The transitions of a term, its invoice, and its renewal that several handlers make.

`cause` is the ID of the event that led to a transition; a deadline has none.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from muster_billing import publishing
from muster_billing.domain import (
    Invoice,
    InvoiceState,
    Issuance,
    OverdueNotice,
    Renewal,
    RenewalState,
    Tariff,
    Term,
    ledger,
)
from muster_billing.repository.invoices import add_invoice, find_invoice_of_term, find_next_ordinal, save_invoice
from muster_billing.repository.ledger import add_transaction
from muster_billing.repository.renewals import add_renewal, find_renewal_of_term, save_renewal
from muster_billing.repository.terms import add_term, save_term
from muster_contracts.billing import TermEndReason
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.scheduling.deadlines import Deadline, cancel, find_instant, schedule

# Kinds of deadlines. The subject of an overdue notice is an invoice, and of an enrollment's end the enrollment; the
# subject of all others is a term.
START_TERM = "start_term"
OFFER_RENEWAL = "offer_renewal"
OVERDUE_NOTICE = "tell_overdue"
END_TERM = "end_term"
END_ENROLLMENT = "end-enrollment"

VOID_REASON = "agency_withdrawn"


async def open_term(uow: UnitOfWork, term: Term) -> bool:
    """Add a term with its draft invoice. Returns False if the enrollment already has that term."""
    if not await add_term(uow.connection, term):
        return False
    invoice = Invoice(
        id=new_id("inv", uow.now),
        agency_id=term.agency_id,
        term_id=term.id,
        fiscal_year=term.fiscal_year,
        amount=term.price,
    )
    await add_invoice(uow.connection, invoice)
    return True


async def start_term(uow: UnitOfWork, term: Term, cause: str | None = None) -> None:
    """Start a term, schedule its deadlines, and issue its invoice."""
    await save_term(uow.connection, term.start())
    uow.publish(publishing.term_started(term), time=term.starts_at, causation_id=cause)
    schedule(
        uow,
        [
            Deadline(OFFER_RENEWAL, term.agency_id, term.id, term.offer_at),
            Deadline(END_TERM, term.agency_id, term.id, term.ends_at),
        ],
    )
    await _issue_invoice(uow, term, cause)


async def _issue_invoice(uow: UnitOfWork, term: Term, cause: str | None) -> None:
    draft = await find_invoice_of_term(uow.connection, term)
    ordinal = await find_next_ordinal(uow.connection, draft.agency_id, draft.fiscal_year)
    issuance = Issuance.at(uow.now, ordinal)
    invoice = draft.issue(issuance)
    booked = add_transaction(ledger.invoice_issued(invoice), uow.now)
    await writes.execute(uow.connection, save_invoice(invoice), booked)
    schedule_notice(uow, invoice, invoice.next_notice)
    uow.publish(publishing.invoice_issued(invoice, issuance), causation_id=cause)


def schedule_notice(uow: UnitOfWork, invoice: Invoice, notice: OverdueNotice | None) -> None:
    if notice:
        schedule(uow, [Deadline(OVERDUE_NOTICE, invoice.agency_id, invoice.id, notice.send_at)])


async def offer_renewal(uow: UnitOfWork, tariff: Tariff, term: Term) -> Renewal:
    """Offer the next term.

    The event's time is when the offer is actually made, because the time to decide starts then.
    """
    renewal = Renewal.offer(new_id("ren", uow.now), term, tariff.renewal, uow.now)
    await add_renewal(uow.connection, renewal)
    uow.publish(publishing.renewal_offered(renewal))
    return renewal


def schedule_end(uow: UnitOfWork, agency_id: str, term_id: str, at: datetime) -> None:
    schedule(uow, [Deadline(END_TERM, agency_id, term_id, at)])


async def complete_term(uow: UnitOfWork, zone: ZoneInfo, term: Term, cause: str | None = None) -> None:
    """End a term at its end, and start the next one if the agency accepted it.

    An unanswered offer lapses: nothing is decided for the agency.
    """
    renewal = await find_renewal_of_term(uow.connection, term)
    renewed = renewal is not None and renewal.state is RenewalState.ACCEPTED
    await save_term(uow.connection, term.end(TermEndReason.COMPLETED, term.ends_at))
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
        await save_renewal(uow.connection, renewal.close(RenewalState.LAPSED))
    if renewed:
        following = term.followed_by(new_id("term", uow.now), renewal, zone)
        if await open_term(uow, following):
            await start_term(uow, following, cause)


async def is_leaving(uow: UnitOfWork, term: Term) -> bool:
    """Whether a term's agency has withdrawn, and the end of its enrollment is due. Until then, nothing is offered."""
    return await _find_withdrawal(uow, term) is not None


async def will_be_voided(uow: UnitOfWork, term: Term) -> bool:
    """Whether an enrollment's end that is due will void the term's unpaid invoice. Until then, no notice is sent."""
    withdrawn_at = await _find_withdrawal(uow, term)
    return withdrawn_at is not None and term.ends_at > withdrawn_at


async def _find_withdrawal(uow: UnitOfWork, term: Term) -> datetime | None:
    return await find_instant(uow.connection, END_ENROLLMENT, term.agency_id, term.enrollment_id)


async def void_unpaid_invoice(uow: UnitOfWork, term: Term, cause: str | None = None) -> None:
    """Void the invoice of a term whose agency withdrew, unless it is paid."""
    invoice = await find_invoice_of_term(uow.connection, term)
    if invoice.state not in (InvoiceState.DRAFT, InvoiceState.ISSUED):
        return
    await writes.execute(uow.connection, save_invoice(invoice.void(VOID_REASON, uow.now)))
    cancel(uow, invoice.agency_id, OVERDUE_NOTICE, [invoice.id])
    # A draft is neither published nor booked.
    if invoice.state is InvoiceState.ISSUED:
        await writes.execute(uow.connection, add_transaction(ledger.invoice_voided(invoice), uow.now))
        uow.publish(publishing.invoice_voided(invoice, VOID_REASON, uow.now), causation_id=cause)


async def withdraw_renewal(uow: UnitOfWork, term: Term) -> None:
    """Close the offer of an agency that withdrew, even if it was accepted."""
    renewal = await find_renewal_of_term(uow.connection, term)
    if renewal is not None and renewal.state in (RenewalState.OFFERED, RenewalState.ACCEPTED):
        await save_renewal(uow.connection, renewal.close(RenewalState.WITHDRAWN))
