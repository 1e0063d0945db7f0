"""Renewals: offers the next term, and records the agency's decision."""

from collections.abc import Sequence

from muster_billing import publishing
from muster_billing.commands import DecideRenewal
from muster_billing.domain import RenewalState, Tariff, TermState
from muster_billing.handlers.transitions import is_leaving, offer_renewal, schedule_end
from muster_billing.replies import RenewalReply
from muster_billing.repository.renewals import find_renewal, find_renewal_of_term, save_renewal
from muster_billing.repository.terms import find_term
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.deadlines import Deadline


async def decide_renewal(uow: UnitOfWork, command: DecideRenewal) -> RenewalReply:
    """Accept or decline an offer. The same decision again changes nothing.

    Raises NotFound, or RenewalClosed if it was decided differently, is withdrawn, or its deadline has passed.
    """
    renewal = await find_renewal(uow.connection, command.agency_id, command.renewal_id)
    held = await hold.are_held(uow.connection)
    decided = renewal.decide(RenewalState(command.decision), uow.now, held=held)
    if decided is not renewal:
        await save_renewal(uow.connection, decided)
        if renewal.next_starts_at <= uow.now:
            # The term is past its end and was only waiting for this answer.
            schedule_end(uow, renewal.agency_id, renewal.term_id, uow.now)
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


async def on_offer_renewal_due(tariff: Tariff, uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Offer the next term, late if necessary: even after the current term's end."""
    for deadline in due:
        term = await find_term(uow.connection, deadline.agency_id, deadline.subject)
        if term.state is not TermState.RUNNING or await is_leaving(uow, term):
            continue
        if await find_renewal_of_term(uow.connection, term) is None:
            await offer_renewal(uow, tariff, term)
