"""`muster audit verify` on what a compromised service or principal left in the database and on the topic."""

from datetime import timedelta

import pytest

from muster_billing.bootstrap import build
from muster_billing.settings import BillingSettings
from muster_operator.audit.finding import What
from muster_runtime.clock import SystemClock
from muster_runtime.process.roles import Role
from tests.integration.operator.trails import Trails
from tests.support.services import ServiceRunner

START = SystemClock().now() - timedelta(days=10)


@pytest.fixture
async def trail(run_service: ServiceRunner) -> Trails:
    """NASA has two seals, and DOE one."""
    trail = Trails(await run_service(build, BillingSettings, roles=frozenset({Role.RELAY})))
    trail.service.clock.move(START)
    await trail.record("NASA", "1", "2")
    await trail.record("DOE", "1")
    await trail.seal()
    await trail.record("NASA", "3")
    await trail.seal()
    return trail


async def test_forged_seal_numbers_do_not_delay_the_verification(trail: Trails) -> None:
    last, ids = 2**63 - 1, (trail.ids["NASA"][2],) * 2
    await trail.put(3, number=last)
    await trail.put(3, epoch=2, number=3)
    await trail.put(4, epoch=2, number=last + 1)
    await trail.put(5, epoch=2, number=4, last_id=last + 1)
    assert await trail.found() == [
        (What.UNREADABLE, "NASA", None, None),
        (What.UNREADABLE, "NASA", None, None),
        (What.SEALS_MISSING, "NASA", (3, 3), ids),
        (What.REMOVED, "NASA", (3, 3), ids),
        (What.NOT_ON_TOPIC, "NASA", (3, last - 1), None),
        (What.SEALS_LOST, "NASA", (3, last), None),
    ]


async def test_an_agency_without_a_trail_is_not_reported_as_matching(trail: Trails) -> None:
    code, printed = await trail.run("verify", "--service", "billing", "--agency", "NOPE")
    assert (code, printed.strip()) == (3, "muster: no audit trail of 'NOPE' in billing")
    code, printed = await trail.run("verify", "--service", "billing", "--agency", "NASA")
    assert code == 0, printed
    assert "Every sealed row matches its seal." in printed


@pytest.mark.parametrize("at", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
async def test_a_date_that_no_program_can_read_is_named(trail: Trails, at: str) -> None:
    admin, ids = trail.service.admin, trail.ids["NASA"]
    await admin.execute("alter table audit drop constraint audit_recorded_at_readable")
    async with trail.tampered(f"update audit set recorded_at = '{at}' where id = {ids[1]}"):
        assert await trail.found() == [(What.UNDATED, "NASA", (1, 1), (ids[0], ids[1]))]
    await trail.record("NASA", "4")
    await admin.execute(f"update audit set recorded_at = '{at}' where id = {ids[3]}")
    assert await trail.found() == [(What.UNDATED, "NASA", None, (ids[3], ids[3]))]
    await admin.execute("alter table audit_seal drop constraint audit_seal_sealed_at_readable")
    async with trail.tampered(f"update audit_seal set sealed_at = '{at}' where agency_id = 'DOE'"):
        assert (What.SEAL_ALTERED, "DOE", (1, 1), (trail.ids["DOE"][0],) * 2) in await trail.found()
