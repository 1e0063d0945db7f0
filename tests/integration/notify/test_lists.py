"""Lists of deliveries are read by indexes, however many deliveries an agency has."""

from typing import Any, cast

import pytest

from muster_notify.domain.deliveries import Channel, DeliveryState
from muster_notify.queries import list_deliveries
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Pagination
from tests.integration.notify.conftest import Notify
from tests.support.explaining import Explaining, reading

ANALYZED = "(analyze, costs off, timing off)"

AGENCIES = ("NASA", "DOE", "EPA")

# NASA's are all delivered, to an endpoint; many of the others' wait, have failed, or are e-mails.
DELIVERIES = """
insert into delivery (
    id, agency_id, event_id, event_type, correlation_id, rule, channel, recipient, audience, payload, state, attempts,
    recorded_at
)
select
    'dlv_' || n, agency_id, 'evt_' || n, 'type', 'cor_1', 'webhook', channel, 'whk_1', agency_id, '', state, 1, now()
from
    generate_series(1, 30000) as n,
    lateral (select (array['NASA', 'DOE', 'EPA'])[n % 3 + 1] as agency_id) as a,
    lateral (
        select
            case when agency_id = 'DOE' then (array['pending', 'failed'])[n % 2 + 1] else 'delivered' end as state,
            case when agency_id = 'EPA' then 'email' else 'webhook' end as channel
    ) as s
"""


# Nearly all of FDA's go to the operators' endpoint.
TO_OPERATORS = """
insert into delivery (
    id, agency_id, event_id, event_type, correlation_id, rule, channel, recipient, audience, payload, state, attempts,
    recorded_at
)
select
    'dlv_' || n, 'FDA', 'evt_' || n, 'type', 'cor_1', 'webhook', 'webhook', 'whk_1',
    case when n % 3000 = 0 then 'FDA' else '*' end, '', 'delivered', 1, now()
from generate_series(30001, 60000) as n
"""


@pytest.fixture
async def filled(notify: Notify) -> Any:
    admin = notify.service.admin
    await admin.execute(DELIVERIES)
    await admin.executemany("insert into agency_instant values ($1, now())", [(agency,) for agency in AGENCIES])
    await admin.execute("analyze delivery")
    return admin


@pytest.mark.parametrize(
    ("state", "channel", "index"),
    [
        (DeliveryState.FAILED, None, "delivery_not_delivered"),
        (DeliveryState.PENDING, None, "delivery_not_delivered"),
        (None, Channel.EMAIL, "delivery_email"),
        (None, None, "delivery_audience"),
    ],
)
async def test_a_list_reads_only_the_deliveries_it_shows(
    filled: Any, state: DeliveryState | None, channel: Channel | None, index: str
) -> None:
    explaining = Explaining(filled, ANALYZED)
    async with reading(filled, "NASA"):
        await list_deliveries(
            cast("Connection", explaining),
            "NASA",
            Pagination(after=None, limit=50),
            tenant="NASA",
            state=state,
            channel=channel,
        )
    assert f"using {index} on delivery" in explaining.plan, explaining.plan
    assert "Rows Removed by Filter" not in explaining.plan, explaining.plan


async def test_an_agencys_own_are_found_among_many_of_the_operators(filled: Any) -> None:
    await filled.execute(TO_OPERATORS)
    await filled.execute("analyze delivery")
    page, explaining = Pagination(after=None, limit=50), Explaining(filled, ANALYZED)
    async with reading(filled, "FDA"):
        found = await list_deliveries(filled, "FDA", page, tenant="FDA", state=None, channel=None)
        await list_deliveries(cast("Connection", explaining), "FDA", page, tenant="FDA", state=None, channel=None)
    assert len(found.items) == 10
    assert "using delivery_audience on delivery" in explaining.plan, explaining.plan
    assert "Rows Removed by Filter" not in explaining.plan, explaining.plan


async def test_the_list_of_all_agencies_is_the_latest_of_each(filled: Any) -> None:
    page, seen = Pagination(after=None, limit=200), []
    explaining = Explaining(filled, ANALYZED)
    async with reading(filled, "*"):
        await list_deliveries(cast("Connection", explaining), "*", page, tenant="*", state=None, channel=None)
        for _ in range(2):
            found = await list_deliveries(filled, "*", page, tenant="*", state=None, channel=None)
            seen += [each.position for each in found.items]
            page = Pagination(after=str(seen[-1]), limit=200)
    assert "using delivery_log on delivery" in explaining.plan, explaining.plan
    assert "Seq Scan on delivery" not in explaining.plan, explaining.plan
    assert seen == list(range(30_000, 29_600, -1))
