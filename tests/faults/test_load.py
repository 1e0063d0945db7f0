"""One agency has nearly all of the traffic: the others, those of its partition too, are served as before."""

import asyncio
import time

import pytest

from muster_runtime.messaging.producers import partition_of
from tests.faults.field import PARTITIONS, Field
from tests.faults.findings import Findings
from tests.support.eventually import eventually

pytestmark = pytest.mark.drill

# The events of the first two are in one partition, those of the third in another.
BUSY, BESIDE, ELSEWHERE = "NASA", "EPA", "DOE"

# How many of each hundred events are the busy agency's, and how many hundreds there are.
SHARE, HUNDREDS = 99, 100


async def test_44_an_agency_with_nearly_all_of_the_traffic_disturbs_no_other(field: Field, findings: Findings) -> None:
    busy, beside, elsewhere = (partition_of(agency.encode(), PARTITIONS) for agency in (BUSY, BESIDE, ELSEWHERE))
    assert busy == beside != elsewhere
    await field.serve("relay", "consumer")
    await field.traffic(10, agencies=[BUSY, BESIDE, ELSEWHERE])
    await field.at_rest()
    delays: dict[str, list[float]] = {BESIDE: [], ELSEWHERE: []}

    async def quiet(agency_id: str, seat_id: str) -> None:
        await field.assign_seats(agency_id, seat_id)
        answered = time.monotonic()
        await eventually(lambda: field.is_applied(agency_id))
        delays[agency_id].append(time.monotonic() - answered)

    for number in range(HUNDREDS):
        seats = [f"busy-{number}-{part}" for part in range(SHARE)]
        agency_id = (BESIDE, ELSEWHERE)[number % 2]
        await asyncio.gather(field.assign_seats(BUSY, *seats), quiet(agency_id, f"quiet-{number}"))
    findings.fault_is_over()
    await field.at_rest()
    slowest = {agency_id: max(delays[agency_id]) * 1000 for agency_id in delays}
    findings.recovered(
        f"the slowest effect of an agency in its partition took {slowest[BESIDE]:.0f} ms, "
        f"of one in another {slowest[ELSEWHERE]:.0f} ms"
    )
    assert max(slowest.values()) < 5000
    assert await field.differences() == []
