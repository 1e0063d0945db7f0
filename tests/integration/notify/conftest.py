"""The whole notify service, with its clock at the start of the program, a mail server and a receiver of webhooks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from muster_contracts import Money
from muster_contracts.billing import InvoicePaid
from muster_contracts.enrollment import AgencyEnrolled, AgencyReinstated, ContactErased, ContactRecorded
from muster_contracts.entitlements import SeatAssigned
from muster_notify.adapters.webhooks import WebhookSender
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel
from muster_notify.repository import deliveries
from muster_notify.settings import NotifySettings
from muster_notify.workers.dispatcher import Dispatcher
from muster_runtime.service import Service, Worker
from tests.integration.notify.mail import MailServer, mail_server
from tests.integration.notify.receiver import Receiver, receiving
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = datetime(2025, 8, 6, tzinfo=UTC)


def enrolled(agency_id: str = "NASA") -> AgencyEnrolled:
    return AgencyEnrolled(
        agency_id=agency_id,
        enrollment_id="enr_1",
        agency_name=f"The {agency_id}",
        seats=10,
        starts_at=START,
        ends_at=START + timedelta(days=365),
    )


def reinstated(agency_id: str = "NASA") -> AgencyReinstated:
    return AgencyReinstated(agency_id=agency_id, enrollment_id="enr_1", reinstated_at=START)


def paid(agency_id: str = "NASA") -> InvoicePaid:
    return InvoicePaid(
        agency_id=agency_id,
        term_id="term_1",
        invoice_id="inv_1",
        payment_id="pay_1",
        amount=Money(amount_minor=100, currency="USD"),
        paid_at=START,
    )


def seat_assigned(agency_id: str = "NASA") -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id="seat_1", subject_ref="sub_1")


def contact(agency_id: str = "NASA", email: str = "ann@nasa.example") -> ContactRecorded:
    return ContactRecorded(
        agency_id=agency_id, subject_ref=f"con_{agency_id}", role="administrator", name="Ann Other", email=email
    )


def contact_erased(agency_id: str = "NASA") -> ContactErased:
    return ContactErased(agency_id=agency_id, subject_ref=f"con_{agency_id}")


@dataclass
class Notify:
    """The running service, and what the tests do with it."""

    service: RunningService

    def move(self, **by: float) -> None:
        """Advance the clock and wake the service, as a move of the sandbox's clock does."""
        self.service.clock.move(self.service.clock.now() + timedelta(**by))

    async def add_webhook(self, url: str, agency_id: str = "NASA", **fields: Any) -> dict[str, Any]:
        response = await self.service.client.post(f"/v1/agencies/{agency_id}/webhooks", json={"url": url, **fields})
        assert response.status_code == 201, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.service.client.get(path, headers=headers)

    async def deliveries(self, agency_id: str = "NASA", **query: str) -> list[dict[str, Any]]:
        response = await self.service.client.get(f"/v1/agencies/{agency_id}/deliveries", params=query)
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def until(self, count: int = 1, agency_id: str = "NASA", **query: str) -> list[dict[str, Any]]:
        """The deliveries of an agency, once there are `count` of that state or channel; more is a failure."""

        async def enough() -> bool:
            return len(await self.deliveries(agency_id, **query)) >= count

        await eventually(enough)
        found = await self.deliveries(agency_id, **query)
        assert len(found) == count
        return found

    async def waits(self, error: str, agency_id: str = "NASA", attempts: int = 1) -> dict[str, Any]:
        """The delivery that waits for its next attempt, with that error, after that many attempts."""

        async def waiting() -> list[dict[str, Any]]:
            found = await self.deliveries(agency_id, state="pending")
            return [d for d in found if d["attempts"] == attempts and d["last_error"] and error in d["last_error"]]

        (delivery,) = await eventually(waiting)
        return dict(delivery)

    async def fails(self, error: str, attempts: int) -> datetime:
        """Let the oldest delivery fail this many times, at the instants of its schedule; returns the last instant."""
        waiting = await self.waits(error)
        for attempt in range(2, attempts + 1):
            self.service.clock.move(datetime.fromisoformat(waiting["next_attempt_at"]))
            waiting = await self.waits(error, attempts=attempt)
        return self.service.clock.now()

    async def settle(self) -> None:
        """Wait until everything is applied and nothing is due."""

        async def quiet() -> bool:
            state = (await self.service.client.get("/sandbox/state")).json()
            due = state["next_due"]
            return state["lag"] == 0 and (due is None or datetime.fromisoformat(due) > self.service.clock.now())

        await eventually(quiet)


def with_sender(settings: NotifySettings, sender: WebhookSender) -> Service:
    """Notify with another sender of webhooks."""
    dispatcher = Dispatcher({Channel.WEBHOOK: sender})
    return replace(build(settings), workers=[Worker("dispatcher", dispatcher.run, deliveries.find_next_due)])


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server(MailServer()) as server:
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
async def notify(run_service: ServiceRunner, mail: MailServer) -> Notify:
    service = await run_service(
        build,
        NotifySettings,
        smtp_port=mail.port,
        smtp_starttls=False,
        webhook_allow_private=True,
        webhook_timeout_seconds=2,
    )
    service.clock.move(START)
    return Notify(service)
