"""Billing as a whole, with its clock at the start of the program."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from muster_billing.bootstrap import build
from muster_billing.settings import BillingSettings
from muster_contracts import Event
from muster_contracts.calendar import one_year_after
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = datetime(2025, 8, 6, 14, 30, tzinfo=UTC)

E = TypeVar("E", bound=Event)


@dataclass
class Billing:
    """The running service, and shortcuts for what the tests do with it."""

    service: RunningService

    def move(self, now: datetime) -> None:
        self.service.clock.move(now)

    async def enroll(self, agency_id: str = "NASA", starts_at: datetime = START, enrollment_id: str = "enr_1") -> None:
        await self.service.publish(enrolled(agency_id, starts_at, enrollment_id))

    async def withdraw(self, withdrawn_at: datetime, agency_id: str = "NASA") -> None:
        await self.service.publish(withdrawn(agency_id, withdrawn_at))

    async def published(self, cls: type[E], count: int = 1) -> list[E]:
        """The events of a type, once there are `count`; more than that is a failure."""

        async def all_published() -> bool:
            return len(await self.service.published(cls)) >= count

        await eventually(all_published)
        events = [event.data for event in await self.service.published(cls)]
        assert len(events) == count
        return events

    async def times(self, cls: type[E]) -> list[datetime]:
        return [event.envelope.time for event in await self.service.published(cls)]

    async def get(self, path: str) -> Any:
        response = await self.service.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def only(self, what: str, agency_id: str = "NASA") -> dict[str, Any]:
        """The only item of an agency's list, once it is there."""

        async def items() -> Any:
            return (await self.get(f"/v1/agencies/{agency_id}/{what}"))["items"]

        (item,) = await eventually(items)
        return dict(item)

    async def pay(self, invoice_id: str, amount: object, agency_id: str = "NASA", **request: Any) -> Any:
        return await self.service.client.post(
            f"/v1/agencies/{agency_id}/invoices/{invoice_id}/payments",
            json={"amount": amount, "reference": "schedule 7"},
            **request,
        )

    async def decide(self, renewal_id: str, decision: str, agency_id: str = "NASA") -> Any:
        return await self.service.client.post(
            f"/v1/agencies/{agency_id}/renewals/{renewal_id}/decision", json={"decision": decision}
        )

    async def settle(self) -> None:
        """Wait until nothing is due and everything is relayed and applied, twice in a row."""
        activity = -1

        async def quiet_twice() -> bool:
            nonlocal activity
            state = (await self.service.client.get("/sandbox/state")).json()
            due = state["next_due"]
            quiet = (
                state["outbox"] == 0
                and state["lag"] == 0
                and (due is None or datetime.fromisoformat(due) > self.service.clock.now())
            )
            before, activity = activity, state["activity"]
            return quiet and before == activity

        await eventually(quiet_twice)

    async def assert_books_balance(self) -> None:
        report = await self.get("/v1/reconciliation")
        assert report == {"terms_without_invoice": [], "misbooked_invoices": [], "unbalanced_accounts": []}


def enrolled(agency_id: str, starts_at: datetime, enrollment_id: str) -> AgencyEnrolled:
    return AgencyEnrolled(
        agency_id=agency_id,
        enrollment_id=enrollment_id,
        agency_name=f"The {agency_id}",
        seats=10,
        starts_at=starts_at,
        ends_at=one_year_after(starts_at),
    )


def withdrawn(agency_id: str, withdrawn_at: datetime, enrollment_id: str = "enr_1") -> AgencyWithdrawn:
    return AgencyWithdrawn(
        agency_id=agency_id, enrollment_id=enrollment_id, reason="reorganized", withdrawn_at=withdrawn_at
    )


@pytest.fixture
async def billing(run_service: ServiceRunner) -> Billing:
    service = await run_service(build, BillingSettings)
    service.clock.move(START)
    return Billing(service)


@pytest.fixture
async def offered(billing: Billing) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Enrolls NASA, moves to the day on which its renewal is offered, and returns the offer."""

    async def go() -> dict[str, Any]:
        await billing.enroll()
        await billing.only("terms")
        billing.move(one_year_after(START) - timedelta(days=60))
        return await billing.only("renewals")

    return go
