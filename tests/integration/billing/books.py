"""Billing's handlers on a real database, with the roles of production and a clock that the tests move."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

from muster_billing.commands import DecideRenewal, RecordPayment
from muster_billing.domain import Money, Tariff
from muster_billing.handlers.invoices import record_payment
from muster_billing.handlers.renewals import decide_renewal
from muster_billing.queries import reports
from muster_billing.replies import ForecastReply
from muster_billing.subscriptions import deadlines, subscriptions
from muster_contracts import Envelope, Event
from muster_contracts.billing import RenewalDecision
from muster_contracts.enrollment import AgencyEnrolled
from muster_runtime.clock import SandboxClock
from muster_runtime.database.transactions import EVERY_AGENCY, Database
from muster_runtime.errors import PermanentError
from muster_runtime.messaging.events import Received
from muster_runtime.scheduling.deadlines import Deadline
from tests.integration.billing.conftest import START, enrolled, withdrawn
from tests.support.contexts import CONTEXT

TARIFF = Tariff(first_term=Money(100, "USD"), renewal=Money(250, "USD"))
WASHINGTON = ZoneInfo("America/New_York")


@dataclass
class Books:
    """The handlers on one database, for one agency after another."""

    worker: Database
    api: Database
    clock: SandboxClock
    admin: "asyncpg.Connection[Any]"
    agency_id: str = "A00"
    enrollments: list[AgencyEnrolled] = field(default_factory=list)
    _agencies: int = 0

    def next_agency(self) -> None:
        self._agencies += 1
        self.agency_id = f"A{self._agencies:02d}"
        self.enrollments = []
        self.clock.move(START)

    async def apply(self, event: Event, at: datetime | None = None) -> None:
        time = at or self.clock.now()
        envelope = Envelope("e1", "/test", event.event_type, time, event.agency_id, 1, 1, "cor_test")
        async with self.worker.write(event.agency_id, context=CONTEXT) as uow:
            handle = subscriptions(TARIFF, WASHINGTON)[type(event)]
            await handle(uow, [Received(envelope, partial(lambda fact: fact, event))])

    async def handle_due(self) -> None:
        while due := await self.admin.fetchrow(
            """
            delete from deadline
            where ctid = (
                select ctid
                from deadline
                where agency_id = $1 and due_at <= $2
                order by due_at, array_position($3::text [], kind)
                limit 1
            )
            returning kind, agency_id, subject, due_at
            """,
            self.agency_id,
            self.clock.now(),
            list(deadlines(TARIFF, WASHINGTON)),
        ):
            async with self.worker.write(self.agency_id, context=CONTEXT) as uow:
                await deadlines(TARIFF, WASHINGTON)[due["kind"]](uow, [Deadline(**due)])

    async def enroll(self) -> None:
        live = await self.admin.fetchval(
            "select count(*) from term where agency_id = $1 and state in ('running', 'scheduled')", self.agency_id
        )
        if live == 0:
            await self.enroll_over()

    async def enroll_over(self) -> None:
        """Enroll even if the earlier enrollment still has a term: the event of its withdrawal was lost."""
        starts_at = self.clock.now() + timedelta(days=len(self.enrollments) % 3)
        self.enrollments.append(enrolled(self.agency_id, starts_at, f"enr_{len(self.enrollments)}"))
        await self.apply(self.enrollments[-1])

    async def enroll_again(self) -> None:
        if self.enrollments:
            await self.apply(self.enrollments[-1])

    async def withdraw(self) -> None:
        if self.enrollments:
            await self.apply(withdrawn(self.agency_id, self.clock.now(), self.enrollments[-1].enrollment_id))

    async def pay(self, amount: Money) -> None:
        for row in await self.admin.fetch("select id from invoice where agency_id = $1", self.agency_id):
            command = RecordPayment(self.agency_id, row["id"], amount, "schedule 7")
            await self.command(partial(record_payment, command=command))

    async def decide(self, decision: RenewalDecision) -> None:
        for row in await self.admin.fetch("select id from renewal where agency_id = $1", self.agency_id):
            command = DecideRenewal(self.agency_id, row["id"], decision)
            await self.command(partial(decide_renewal, command=command))

    async def command(self, handler: Callable[[Any], Awaitable[object]]) -> None:
        try:
            async with self.api.write(self.agency_id, context=CONTEXT) as uow:
                await handler(uow)
        except PermanentError:
            pass  # a refusal is fine; the books must agree either way

    async def state(self) -> dict[str, Any]:
        """Everything stored, without ids: to compare two orders of the same facts."""
        return {
            table: sorted(
                tuple(row.values())
                for row in await self.admin.fetch(f"select {columns} from {table} where agency_id = $1", self.agency_id)
            )
            for table, columns in {
                "term": "number, state, starts_at, ended_at, end_reason",
                "invoice": "state, ordinal, fiscal_year",
                "renewal": "state",
                "deadline": "kind, due_at",
                "ledger_entry": "account, amount_minor",
                "outbox": "type, time",
            }.items()
        }

    async def invoices(self) -> list[str]:
        """The states of the invoices, by the start of their terms."""
        found = await self.admin.fetch(
            """
            select i.state
            from invoice as i
            join term as t on t.id = i.term_id
            where i.agency_id = $1
            order by t.starts_at, t.number
            """,
            self.agency_id,
        )
        return [row["state"] for row in found]

    async def forecast(self, fiscal_year: int) -> ForecastReply:
        async with self.worker.read(self.agency_id) as connection:
            return await reports.forecast(connection, fiscal_year)

    async def assert_sound(self) -> None:
        async with self.worker.read(EVERY_AGENCY) as connection:
            report = await reports.reconcile(connection)
        assert not any(report.model_dump().values()), report
        assert await self.admin.fetchval("select coalesce(sum(amount_minor), 0) from ledger_entry") == 0
        invoiced = await self.admin.fetch(
            "select fiscal_year, ordinal from invoice where agency_id = $1 and ordinal is not null", self.agency_id
        )
        for year, count in Counter(row["fiscal_year"] for row in invoiced).items():
            assert {row["ordinal"] for row in invoiced if row["fiscal_year"] == year} == set(range(1, count + 1))
        assert await self.admin.fetchval("select count(*) from term") == await self.admin.fetchval(
            "select count(distinct term_id) from invoice"
        )
        announced = await self.admin.fetchval(
            """
            select coalesce(sum(cardinality(payloads)), 0)
            from outbox
            where agency_id = $1 and type = 'muster.billing.InvoiceIssued.v1'
            """,
            self.agency_id,
        )
        assert announced == len(invoiced)
