"""What billing publishes names the event that led to it, so that a trace shows the whole path."""

from datetime import timedelta

from muster_billing.bootstrap import build
from muster_billing.settings import BillingSettings
from muster_contracts import Event
from muster_contracts.billing import InvoiceIssued, InvoiceVoided, TermEnded, TermStarted
from muster_contracts.calendar import one_year_after
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.billing.conftest import START, Billing, enrolled, withdrawn
from tests.support.services import ServiceRunner

END = one_year_after(START)


async def test_all_that_an_event_leads_to_names_it_even_what_it_catches_up_on(run_service: ServiceRunner) -> None:
    """The second enrollment completes the first one's term, starts the accepted one, and ends that."""
    service = await run_service(build, BillingSettings, roles=ALL_ROLES - {Role.SCHEDULER})
    billing = Billing(service)
    billing.move(START)
    (first,) = await service.publish(enrolled("NASA", START, "enr_1"))
    await billing.published(InvoiceIssued)
    await service.admin.execute(
        """
        insert into renewal (
            id, agency_id, term_id, state, price_minor, currency, next_starts_at, next_ends_at, offered_at, decided_at
        )
        select
            'ren_1', agency_id, id, 'accepted', 100, 'USD', ends_at, ends_at + interval '1 year', starts_at, starts_at
        from term
        """
    )
    back = END + timedelta(days=3)
    billing.move(back)
    (second,) = await service.publish(enrolled("NASA", back, "enr_2"))
    await billing.published(InvoiceIssued, 3)
    (third,) = await service.publish(withdrawn("NASA", back, "enr_2"))
    await billing.published(InvoiceVoided, 2)

    async def causes(cls: type[Event]) -> list[str | None]:
        published = [event.envelope for event in await service.published(cls)]
        assert {each.correlation_id for each in published} <= {each.correlation_id for each in (first, second, third)}
        return [each.causation_id for each in published]

    assert await causes(TermStarted) == await causes(InvoiceIssued) == [first.id, second.id, second.id]
    assert await causes(TermEnded) == [second.id, second.id, third.id]
    assert await causes(InvoiceVoided) == [second.id, third.id]
