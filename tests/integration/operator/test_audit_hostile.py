"""`muster audit verify` on what a service or a principal that was taken over left in the database and on the topic."""

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


async def test_forged_numbers_of_seals_do_not_hold_up_the_verification(trail: Trails) -> None:
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


async def test_an_agency_without_a_trail_is_not_said_to_match(trail: Trails) -> None:
    code, printed = await trail.run("verify", "--service", "billing", "--agency", "NOPE")
    assert (code, printed.strip()) == (3, "muster: no audit trail of 'NOPE' in billing")
    code, printed = await trail.run("verify", "--service", "billing", "--agency", "NASA")
    assert code == 0, printed
    assert "Every sealed row matches its seal." in printed
