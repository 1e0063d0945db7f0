"""Payments of invoices, and the notices about unpaid ones."""

from collections.abc import Sequence

from muster_billing import publishing
from muster_billing.commands import RecordPayment
from muster_billing.domain import Payment, ledger
from muster_billing.handlers.transitions import OVERDUE_NOTICE, schedule_notice, will_be_voided
from muster_billing.replies import PaymentReply
from muster_billing.repository.invoices import add_payment, find_invoice, save_invoice
from muster_billing.repository.ledger import add_transaction
from muster_billing.repository.terms import find_term
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling.deadlines import Deadline, cancel


async def record_payment(uow: UnitOfWork, command: RecordPayment) -> PaymentReply:
    """Record the payment of an issued invoice: its exact amount, once.

    Raises NotFound, InvoiceNotPayable, or InvalidInput for any other amount or currency.
    """
    invoice = await find_invoice(uow.connection, command.agency_id, command.invoice_id)
    paid = invoice.pay(command.amount, uow.now)
    payment = Payment(
        id=new_id("pay", uow.now),
        agency_id=command.agency_id,
        invoice_id=command.invoice_id,
        amount=command.amount,
        reference=command.reference,
        paid_at=uow.now,
    )
    uow.writes.add(
        save_invoice(paid),
        add_payment(payment),
        add_transaction(ledger.payment_received(paid), uow.now),
    )
    cancel(uow, paid.agency_id, OVERDUE_NOTICE, [paid.id])
    uow.publish(publishing.invoice_paid(paid, payment))
    audit.record(
        uow,
        command="RecordPayment",
        agency_id=paid.agency_id,
        subject=paid.id,
        before={"state": invoice.state},
        after={"state": paid.state, "payment_id": payment.id, "reference": payment.reference},
    )
    return PaymentReply.of(payment)


async def on_overdue_notice_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that an invoice is overdue, and schedule the next notice. No service is cut off."""
    for deadline in due:
        invoice = await find_invoice(uow.connection, deadline.agency_id, deadline.subject)
        notice = invoice.next_notice
        if notice is None:
            continue
        if await will_be_voided(uow, await find_term(uow.connection, invoice.agency_id, invoice.term_id)):
            continue
        escalated = invoice.escalate(notice)
        await writes.execute(uow.connection, save_invoice(escalated))
        following = escalated.next_notice
        if following is not None:
            following = following.postpone(notice, uow.now)
        schedule_notice(uow, escalated, following)
        uow.publish(publishing.payment_overdue(escalated, notice, uow.now), time=deadline.due_at)
