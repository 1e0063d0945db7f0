"""What the tests of the probe look at: its effects, its readiness, its parked streams."""

from muster_contracts.entitlements import SeatAssigned
from tests.support.services import RunningService


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def seats(probe: RunningService, agency_id: str, count: int) -> bool:
    assert await probe.admin.fetchval("select count(*) from effect where agency_id = $1", agency_id) == count
    return True


async def reasons(probe: RunningService) -> str:
    reply = await probe.client.get("/health/ready")
    assert reply.status_code == (200 if reply.json()["ready"] else 503)
    assert (await probe.client.get("/health/live")).status_code == 200
    return "; ".join(reply.json()["reasons"])


async def not_ready(probe: RunningService, because: str) -> bool:
    assert because in await reasons(probe)
    return True


async def ready(probe: RunningService) -> bool:
    assert await reasons(probe) == ""
    return True


async def parked_streams(probe: RunningService) -> set[tuple[str, int]]:
    rows = await probe.admin.fetch("select agency_id, records from parked_stream")
    return {tuple(row) for row in rows}


async def has_parked(probe: RunningService, agencies: set[str]) -> bool:
    assert {agency_id for agency_id, _ in await parked_streams(probe)} == agencies
    return True
