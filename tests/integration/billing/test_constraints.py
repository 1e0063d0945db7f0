"""What the database itself refuses: a second one of what there may be one of, whatever the handlers do."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from muster_operator.databases.provisioning import Access

FACTS = """
insert into term (
    id, agency_id, enrollment_id, number, state, starts_at, ends_at, first_day, price_minor, currency
)
values ('term_1', 'NASA', 'enr_1', 1, 'running', '2025-08-06', '2026-08-06', '2025-08-06', 100, 'USD');
insert into invoice (
    id, agency_id, term_id, state, fiscal_year, ordinal, amount_minor, currency, issued_at, due_at, paid_at
)
values ('inv_1', 'NASA', 'term_1', 'paid', 2025, 1, 100, 'USD', '2025-08-06', '2025-09-05', '2025-08-07');
insert into payment (id, agency_id, invoice_id, amount_minor, currency, reference, paid_at)
values ('pay_1', 'NASA', 'inv_1', 100, 'USD', 'schedule 7', '2025-08-07');
insert into renewal (
    id, agency_id, term_id, state, price_minor, currency, next_starts_at, next_ends_at, offered_at
)
values ('ren_1', 'NASA', 'term_1', 'offered', 100, 'USD', '2026-08-06', '2027-08-06', '2026-06-07');
insert into ledger_transaction (agency_id, invoice_id, kind, recorded_at)
values ('NASA', 'inv_1', 'payment_received', '2025-08-07');
"""


@pytest.fixture
async def admin(
    service_database: Callable[..., Awaitable[Access]],
) -> "AsyncIterator[asyncpg.Connection[Any]]":
    access = await service_database("billing")
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "billing"})
    await admin.execute(FACTS)
    yield admin
    await admin.close()


@pytest.mark.parametrize(
    ("table", "differs", "constraint"),
    [
        ("term", {"enrollment_id": "enr_2"}, "term_live"),
        ("term", {"state": "ended"}, "term_agency_id_enrollment_id_number_key"),
        ("invoice", {"ordinal": 2}, "invoice_term_id_key"),
        ("invoice", {"term_id": "term_0"}, "invoice_agency_id_fiscal_year_ordinal_key"),
        ("payment", {}, "payment_invoice_id_key"),
        ("renewal", {}, "renewal_term_id_key"),
        ("ledger_transaction", {}, "ledger_transaction_invoice_id_kind_key"),
    ],
)
async def test_a_second_one_is_refused(
    admin: "asyncpg.Connection[Any]", table: str, differs: dict[str, object], constraint: str
) -> None:
    changes = json.dumps({"id": 2, **differs})
    with pytest.raises(asyncpg.UniqueViolationError, match=constraint):
        await admin.execute(
            f"""
            insert into {table} overriding system value
            select (jsonb_populate_record({table}, $1)).*
            from {table}
            """,
            changes,
        )
