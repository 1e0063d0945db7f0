"""A batch of use is read, and its terms are found, in slices of time: other tasks run between them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from muster_entitlements.domain.catalog import packaged_catalog
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.usage import EVENT_TYPE, MOST_USES
from muster_entitlements.handlers.usage import Nearest, _meter_all
from muster_entitlements.handlers.usage_reports import _read_all
from tests.support.turns import counted_turns

NOW = datetime(2025, 11, 1, tzinfo=UTC)
EVENTS = 20_000

# Either takes several times as many slices.
LEAST_TURNS = 5


def event(number: int) -> dict[str, Any]:
    data = {"agency_id": "NASA", "subject_ref": f"sub_{number:032x}", "feature": "deep-research", "amount": 1}
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "/research",
        "type": EVENT_TYPE,
        "time": (NOW - timedelta(seconds=number)).isoformat(),
        "data": data if number else data | {"amount": MOST_USES + 1},
    }


async def test_other_tasks_run_while_a_batch_is_read_and_metered() -> None:
    events = [event(number) for number in range(EVENTS)]
    async with counted_turns() as turns:
        uses, refused = await _read_all(events)
        assert turns() > LEAST_TURNS
    assert (len(uses["NASA"]), list(refused)) == (EVENTS - 1, [0])
    catalog = packaged_catalog()
    meters = {"NASA": Meter(ZoneInfo("UTC"), {}, catalog.features)}
    async with counted_turns() as turns:
        metered, refused = await _meter_all(uses["NASA"], catalog, meters, Nearest(), NOW, {})
        assert turns() > LEAST_TURNS
    assert (len(metered), refused) == (EVENTS - 1, {})
