"""What changes terms, invoices and renewals: one function per command, event and deadline."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from muster_billing import ledger, lifecycle, publishing, repository
from muster_billing.commands import DecideRenewal, RecordPayment
from muster_billing.domain import Payment, RenewalState, Tariff, Term, TermState, civil_day
from muster_billing.replies import PaymentReply, RenewalReply
from muster_contracts.billing import TermEndReason
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.observability import audit
from muster_runtime.scheduling.deadlines import Deadline, cancel, schedule

# Commands


async def record_payment(uow: UnitOfWork, command: RecordPayment) -> PaymentReply:
    """Take the exact amount of an issued invoice, once.

    Raises NotFound, InvoiceNotPayable, or InvalidInput for any other amount or currency.
    """
    invoice = await repository.invoice_by_id(uow.connection, command.agency_id, command.invoice_id)
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
        repository.save_invoice(paid),
        repository.add_payment(payment),
        repository.book(ledger.payment_received(paid), uow.now),
    )
    cancel(uow, paid.agency_id, lifecycle.TELL_OVERDUE, [paid.id])
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


async def decide_renewal(uow: UnitOfWork, command: DecideRenewal) -> RenewalReply:
    """Accept or decline an offer; to say the same again changes nothing.

    Raises NotFound, or RenewalClosed once it was decided otherwise, is withdrawn, or its time is over.
    """
    renewal = await repository.renewal_by_id(uow.connection, command.agency_id, command.renewal_id)
    decided = renewal.decide(RenewalState(command.decision), uow.now)
    if decided is not renewal:
        await repository.save_renewal(uow.connection, decided)
        if renewal.next_starts_at <= uow.now:
            # Only this answer was still waited for.
            lifecycle.schedule_end(uow, renewal.agency_id, renewal.term_id, uow.now)
        uow.publish(publishing.renewal_decided(decided, command.decision, uow.now))
    audit.record(
        uow,
        command="DecideRenewal",
        agency_id=renewal.agency_id,
        subject=renewal.id,
        before={"state": renewal.state},
        after={"state": decided.state},
    )
    return RenewalReply.of(decided)


# Events


async def begin_first_terms(
    tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyEnrolled]]
) -> None:
    """An enrolled agency has a first term: now, or by a deadline when it lies ahead."""
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
        if not await lifecycle.add(uow, term):
            continue
        if term.starts_at <= uow.now:
            await lifecycle.start(uow, term, event.envelope.id)
        else:
            schedule(uow, [Deadline(lifecycle.START_TERM, term.agency_id, term.id, term.starts_at)])


async def withdraw(zone: ZoneInfo, uow: UnitOfWork, received: Sequence[Received[AgencyWithdrawn]]) -> None:
    """A withdrawal ends the enrollment's term, voids its invoice if unpaid, and closes its renewal."""
    for event in received:
        withdrawn = event.data
        term = await _catch_up(uow, zone, withdrawn, event.envelope.id)
        if term is None:
            continue
        if term.state is TermState.SCHEDULED:
            # No event announced its start, so none announces its end.
            await repository.save_term(uow.connection, term.cancel())
        else:
            ended_at = max(withdrawn.withdrawn_at, term.starts_at)
            await repository.save_term(uow.connection, term.end(TermEndReason.WITHDRAWN, ended_at))
            uow.publish(
                publishing.term_ended(term, TermEndReason.WITHDRAWN, ended_at, renewed=False),
                time=ended_at,
                causation_id=event.envelope.id,
            )
        await lifecycle.void_unpaid(uow, term, event.envelope.id)
        await lifecycle.close_renewal(uow, term)
        for kind in (lifecycle.START_TERM, lifecycle.OFFER_RENEWAL, lifecycle.END_TERM):
            cancel(uow, term.agency_id, kind, [term.id])


# Deadlines


async def start_terms(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """A scheduled term begins."""
    for deadline in due:
        term = await repository.term_by_id(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is TermState.SCHEDULED:
            await lifecycle.start(uow, term)


async def offer_renewals(tariff: Tariff, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """A further term is offered; late, and even after the term's end, rather than never."""
    for deadline in due:
        term = await repository.term_by_id(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is TermState.RUNNING and await repository.renewal_of_term(uow.connection, term) is None:
            await lifecycle.offer(uow, tariff, term)


async def tell_overdue(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that an invoice is unpaid, and again while it stays unpaid. No service is cut off."""
    for deadline in due:
        invoice = await repository.invoice_by_id(uow.connection, deadline.agency_id, deadline.subject)
        notice = invoice.next_notice
        if notice is None:
            continue
        told = invoice.escalate(notice)
        await writes.execute(uow.connection, repository.save_invoice(told))
        following = told.next_notice
        if following is not None:
            following = following.put_off(notice, uow.now)
        lifecycle.schedule_notice(uow, told.agency_id, told.id, following)
        uow.publish(publishing.payment_overdue(told, notice, uow.now), time=deadline.due_at)


async def end_terms(tariff: Tariff, zone: ZoneInfo, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """A term is complete, once its agency was offered a further one and has had its time to decide."""
    for deadline in due:
        term = await repository.term_by_id(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is not TermState.RUNNING:
            continue
        renewal = await repository.renewal_of_term(uow.connection, term) or await lifecycle.offer(uow, tariff, term)
        if renewal.is_open(uow.now):
            lifecycle.schedule_end(uow, term.agency_id, term.id, renewal.decide_by)
        else:
            await lifecycle.complete(uow, zone, term)


async def _catch_up(uow: UnitOfWork, zone: ZoneInfo, withdrawn: AgencyWithdrawn, cause: str) -> Term | None:
    """The term that a withdrawal cuts short, once all that the calendar had set before it has happened.

    So the terms and the books are the same whether it comes before or after the deadlines of its own instant.
    """
    while term := await repository.live_term(uow.connection, withdrawn.agency_id, withdrawn.enrollment_id):
        if term.state is TermState.SCHEDULED and term.starts_at <= withdrawn.withdrawn_at:
            await lifecycle.start(uow, term, cause)
        elif term.state is TermState.RUNNING and term.ends_at <= withdrawn.withdrawn_at:
            await lifecycle.complete(uow, zone, term, cause)
        else:
            return term
    return None
