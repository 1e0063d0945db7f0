"""Pages of the audit and of the reads of personal data, in tables where other agencies have nearly all the rows."""

from typing import cast

import pytest

from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.http.audit_routes import find_page
from muster_runtime.pagination import Pagination
from tests.integration.runtime.http.conftest import Sample
from tests.support.explaining import Explaining, reading

ANALYZED = "(analyze, costs off, timing off)"

# FDA has 60 rows, the oldest; EPA a third of the rest, NASA the others.
AUDIT = """
insert into audit (recorded_at, agency_id, actor, command, correlation_id)
select
    now(), case when n <= 60 then 'FDA' when n % 3 = 0 then 'EPA' else 'NASA' end, 'operator', 'WriteNote', 'cor_1'
from generate_series(1, 30000) as n
order by n
"""
PERSONAL_READS = """
insert into personal_read (read_at, agency_id, actor, route, subject_refs)
select
    now(), case when n <= 60 then 'FDA' when n % 3 = 0 then 'EPA' else 'NASA' end, 'operator', 'GET /v1/notes', '{}'
from generate_series(1, 30000) as n
order by n
"""

TABLES = pytest.mark.parametrize(("table", "rows"), [("audit", AUDIT), ("personal_read", PERSONAL_READS)])


@TABLES
@pytest.mark.parametrize(
    ("agencies", "tenant", "index"),
    [
        ({"FDA"}, "FDA", "agency_id"),
        ({"FDA", "DOE"}, "DOE,FDA", "agency_id"),
        ({EVERY_AGENCY}, EVERY_AGENCY, "pkey"),
    ],
)
async def test_a_page_reads_only_the_rows_it_shows(
    sample: Sample, table: str, rows: str, agencies: set[str], tenant: str, index: str
) -> None:
    await sample.admin.execute(rows)
    await sample.admin.execute(f"analyze {table}")
    explaining = Explaining(sample.admin, ANALYZED)
    async with reading(sample.admin, tenant):
        await find_page(cast("Connection", explaining), table, frozenset(agencies), Pagination(after="20", limit=50))
    assert f"using {table}_{index} on {table}" in explaining.plan, explaining.plan
    assert "Rows Removed by Filter" not in explaining.plan, explaining.plan


@TABLES
async def test_the_pages_of_several_agencies_are_their_rows_in_order(sample: Sample, table: str, rows: str) -> None:
    await sample.admin.execute(rows)
    page, found = Pagination(after=None, limit=50), [0]
    async with reading(sample.admin, "FDA,EPA"):
        while found:
            found = [row["id"] for row in await find_page(sample.admin, table, frozenset({"FDA", "EPA"}), page)]
            expected = await sample.admin.fetch(
                f"select id from {table} where agency_id in ('FDA', 'EPA') and id > $1 order by id limit $2",
                page.after_id or 0,
                page.rows,
            )
            assert found == [row["id"] for row in expected]
            page = Pagination(after=str(found[-1]), limit=5000) if found else page
