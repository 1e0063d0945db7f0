"""Whatever happens in whatever order, the books balance."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster_billing.commands import RecordPayment
from muster_billing.domain import Money
from muster_billing.handlers.invoices import record_payment
from muster_billing.handlers.transitions import OFFER_RENEWAL, START_TERM
from muster_billing.subscriptions import deadlines
from muster_contracts.billing import RenewalDecision
from muster_contracts.calendar import one_year_after
from muster_operator.databases.provisioning import Access
from muster_runtime.clock import SandboxClock
from muster_runtime.database.transactions import Database
from muster_runtime.errors import PermanentError
from muster_runtime.scheduling.deadlines import Deadline
from tests.integration.billing.books import TARIFF, WASHINGTON, Books
from tests.integration.billing.conftest import START, enrolled, withdrawn
from tests.support.contexts import CONTEXT

END = one_year_after(START)


@pytest.fixture
async def books(service_database: Callable[..., Awaitable[Access]]) -> AsyncIterator[Books]:
    access = await service_database("billing")
    clock = SandboxClock()
    clock.move(START)
    worker = await Database(access.worker_dsn, "billing", clock, size=2).open()
    api = await Database(access.api_dsn, "billing", clock, size=2).open()
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "billing"})
    yield Books(worker, api, clock, admin)
    await admin.close()
    await api.close()
    await worker.close()


STEPS = st.one_of(
    st.sampled_from(["enroll", "enroll_again", "enroll_over", "withdraw", "handle_due"]).map(lambda name: (name, None)),
    st.tuples(st.just("pay"), st.sampled_from([Money(100, "USD"), Money(250, "USD"), Money(100, "EUR")])),
    st.tuples(st.just("decide"), st.sampled_from(RenewalDecision)),
    st.tuples(st.just("wait"), st.sampled_from([1, 29, 30, 61, 305, 365])),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=25))
async def test_after_any_commands_in_any_order_the_books_balance_with_one_invoice_a_term(
    books: Books, steps: list[tuple[str, Any]]
) -> None:
    books.next_agency()
    for name, argument in [("enroll", None), *steps]:
        if name == "wait":
            books.clock.move(books.clock.now() + timedelta(days=argument))
        elif argument is None:
            await getattr(books, name)()
        else:
            await getattr(books, name)(argument)
    await books.assert_sound()


async def until_the_end(books: Books, decision: RenewalDecision | None) -> None:
    books.next_agency()
    await books.enroll()
    books.clock.move(END - timedelta(days=60))
    await books.handle_due()
    if decision:
        await books.decide(decision)


@pytest.mark.parametrize("decision", [None, *RenewalDecision])
@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=3)])
async def test_a_withdrawal_at_the_end_has_the_same_result_before_and_after_the_deadlines(
    books: Books, decision: RenewalDecision | None, late: timedelta
) -> None:
    outcomes = []
    for deadlines_first in (True, False):
        await until_the_end(books, decision)
        books.clock.move(END + late)
        if deadlines_first:
            await books.handle_due()
        await books.withdraw()
        await books.handle_due()
        await books.assert_sound()
        outcomes.append(await books.state())
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=3)])
async def test_a_withdrawal_at_the_start_has_the_same_result_before_and_after_the_deadlines(
    books: Books, late: timedelta
) -> None:
    outcomes = []
    for deadlines_first in (True, False):
        books.next_agency()
        starts_at = START + timedelta(days=1)
        await books.apply(enrolled(books.agency_id, starts_at, "enr_0"))
        books.clock.move(starts_at + late)
        if deadlines_first:
            await books.handle_due()
        await books.apply(withdrawn(books.agency_id, starts_at + late, "enr_0"))
        await books.handle_due()
        await books.assert_sound()
        outcomes.append(await books.state())
    assert outcomes[0] == outcomes[1]
    assert [state for _, state, *_ in outcomes[0]["term"]] == ["ended"]


@pytest.mark.parametrize("decision", [None, *RenewalDecision])
async def test_a_late_withdrawal_voids_the_invoices_that_an_early_one_would(
    books: Books, decision: RenewalDecision | None
) -> None:
    outcomes = []
    for deadlines_first in (True, False):
        await until_the_end(books, decision)
        books.clock.move(END)
        if deadlines_first:
            await books.handle_due()
        await books.apply(withdrawn(books.agency_id, END - timedelta(hours=1), "enr_0"))
        await books.handle_due()
        await books.assert_sound()
        outcomes.append(await books.invoices())
    assert set(outcomes[0]) == set(outcomes[1]) == {"void"}


async def test_a_withdrawal_that_is_read_after_the_start_that_it_precedes_ends_the_term_as_it_begins(
    books: Books,
) -> None:
    books.next_agency()
    starts_at = START + timedelta(days=1)
    await books.apply(enrolled(books.agency_id, starts_at, "enr_0"))
    books.clock.move(starts_at)
    await books.handle_due()
    await books.apply(withdrawn(books.agency_id, START, "enr_0"))
    await books.assert_sound()
    ended = await books.admin.fetchval("select ended_at from term where agency_id = $1", books.agency_id)
    assert ended == starts_at


async def test_a_withdrawal_of_an_earlier_enrollment_that_is_published_again_changes_nothing(books: Books) -> None:
    books.next_agency()
    await books.enroll()
    await books.withdraw()
    await books.enroll_over()
    before = await books.state()
    await books.apply(withdrawn(books.agency_id, START, "enr_0"))
    assert await books.state() == before


@pytest.mark.parametrize("kind", [START_TERM, OFFER_RENEWAL])
async def test_a_deadline_whose_effect_another_one_had_changes_nothing(books: Books, kind: str) -> None:
    """An operator retries it: it was parked, and meanwhile the term began, or its end made the offer."""
    await until_the_end(books, None)
    term_id = await books.admin.fetchval("select id from term where agency_id = $1", books.agency_id)
    before = await books.state()
    async with books.worker.write(books.agency_id, context=CONTEXT) as uow:
        await deadlines(TARIFF, WASHINGTON)[kind](uow, [Deadline(kind, books.agency_id, term_id, START)])
    assert await books.state() == before


@pytest.mark.parametrize("days", [0, 100, 400])
async def test_an_enrollment_ends_the_earlier_one_whose_withdrawal_was_lost(books: Books, days: int) -> None:
    books.next_agency()
    await books.enroll()
    books.clock.move(START + timedelta(days=days))
    await books.enroll_over()
    await books.enroll_again()
    await books.handle_due()
    books.clock.move(books.clock.now() + timedelta(days=1))  # the second term starts a day after its enrollment
    await books.handle_due()
    await books.assert_sound()
    terms = await books.admin.fetch(
        "select enrollment_id, state from term where agency_id = $1 order by starts_at, enrollment_id", books.agency_id
    )
    assert [tuple(term) for term in terms] == [("enr_0", "ended"), ("enr_1", "running")]
    assert await books.invoices() == ["void" if days < 365 else "issued", "issued"]


async def test_an_enrollment_that_is_read_after_the_earlier_ones_term_voids_its_invoice(books: Books) -> None:
    books.next_agency()
    await books.enroll()
    books.clock.move(END + timedelta(days=1))
    await books.handle_due()  # the enrollment waits parked meanwhile, behind the lost withdrawal
    await books.apply(enrolled(books.agency_id, END, "enr_1"), at=END - timedelta(days=20))
    await books.assert_sound()
    assert await books.invoices() == ["void", "issued"]


async def test_an_earlier_enrollment_that_is_published_again_ends_nothing(books: Books) -> None:
    books.next_agency()
    await books.enroll()
    await books.enroll_over()
    before = await books.state()
    await books.apply(books.enrollments[0])
    assert await books.state() == before


async def test_the_forecast_leaves_out_a_renewal_whose_invoice_was_voided(books: Books) -> None:
    await until_the_end(books, RenewalDecision.ACCEPTED)
    books.clock.move(END)
    await books.handle_due()
    assert [line.renewals for line in (await books.forecast(2026)).lines] == [1]
    await books.withdraw()
    assert (await books.forecast(2026)).lines == []


async def test_the_forecast_counts_the_renewals_of_two_enrollments_apart(books: Books) -> None:
    """The first one's was accepted, and its invoice voided; each enrollment counts its terms from 1."""
    await until_the_end(books, RenewalDecision.ACCEPTED)
    books.clock.move(END)
    await books.handle_due()
    await books.withdraw()
    await books.enroll()
    for instant in (one_year_after(END) - timedelta(days=30), one_year_after(END) + timedelta(days=2)):
        books.clock.move(instant)
        await books.handle_due()
        await books.decide(RenewalDecision.ACCEPTED)
    assert [(line.state, line.renewals) for line in (await books.forecast(2027)).lines] == [("accepted", 1)]


async def test_a_term_that_begins_on_october_1_is_forecast_for_the_year_that_begins_then(books: Books) -> None:
    books.next_agency()
    starts_at = datetime(2025, 10, 1, 12, tzinfo=UTC)
    books.clock.move(starts_at)
    await books.apply(enrolled(books.agency_id, starts_at, "enr_0"))
    books.clock.move(one_year_after(starts_at) - timedelta(days=60))
    await books.handle_due()
    assert [len((await books.forecast(year)).lines) for year in (2026, 2027, 2028)] == [0, 1, 0]


async def test_two_transactions_of_one_agency_cannot_both_take_the_payment(books: Books) -> None:
    books.next_agency()
    await books.enroll()
    (invoice_id,) = [row["id"] for row in await books.admin.fetch("select id from invoice")]
    command = RecordPayment(books.agency_id, invoice_id, Money(100, "USD"), "schedule 7")

    async def attempt() -> bool:
        try:
            async with books.api.write(books.agency_id, context=CONTEXT) as uow:
                await record_payment(uow, command)
        except PermanentError:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(8)))) == 1
    await books.assert_sound()


async def test_the_database_refuses_entries_that_do_not_sum_to_zero(books: Books) -> None:
    books.next_agency()
    await books.enroll()
    transaction_id = await books.admin.fetchval("select id from ledger_transaction")
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):
        async with books.worker.write(books.agency_id, context=CONTEXT) as uow:
            await uow.connection.execute(
                """
                insert into ledger_entry (transaction_id, agency_id, account, amount_minor, currency)
                values ($1, $2, 'cash', 1, 'USD')
                """,
                transaction_id,
                books.agency_id,
            )


@pytest.mark.parametrize("statement", ["update ledger_entry set amount_minor = 1", "delete from ledger_entry"])
async def test_neither_role_can_change_the_ledger(books: Books, statement: str) -> None:
    for database in (books.api, books.worker):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.write("A01", context=CONTEXT) as uow:
                await uow.connection.execute(statement)


async def test_an_enrollment_that_ends_before_it_starts_is_refused(books: Books) -> None:
    books.next_agency()
    event = enrolled(books.agency_id, START, "enr_0").model_copy(update={"ends_at": START})
    with pytest.raises(PermanentError, match="ends_at"):
        await books.apply(event)
