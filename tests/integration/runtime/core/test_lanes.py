"""The relay's lanes share what they find: if one finds that commits are lost, none of them publishes."""

from collections.abc import Awaitable, Callable
from typing import Any

from muster_contracts.entitlements import PersonRecorded
from muster_runtime.messaging.relay import Relay
from tests.integration.runtime.core.relays import outbox_is_empty, relay_all, relaying, write
from tests.integration.runtime.core.test_restore_guard import lose_commits, raise_epoch
from tests.support.contexts import CONTEXT
from tests.support.services import RunningService

Eventually = Callable[..., Awaitable[Any]]


async def test_no_lane_publishes_while_the_topics_of_another_show_lost_commits(
    idle_probe: RunningService, eventually: Eventually
) -> None:
    await write(idle_probe, "NASA", "one", "two")
    await relay_all(idle_probe)
    await lose_commits(idle_probe)
    await write_person(idle_probe)
    async with relaying(idle_probe) as relay:
        await eventually(lambda: all_refuse(relay))
        assert (relay.held or "").count("it was restored") == 1
        assert not await outbox_is_empty(idle_probe)
    assert await idle_probe.published(PersonRecorded) == []

    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    (person,) = await idle_probe.published(PersonRecorded)
    assert person.envelope.epoch == 2


async def test_a_lane_that_publishes_stops_once_another_finds_lost_commits(
    idle_probe: RunningService, eventually: Eventually
) -> None:
    """As when a partition that had no leader shows the loss."""
    await write(idle_probe, "NASA", "one", "two")
    await write_person(idle_probe)
    async with relaying(idle_probe) as relay:
        await eventually(lambda: outbox_is_empty(idle_probe))
        await lose_commits(idle_probe)
        facts = relay._lanes[0]
        facts._flight.regained = True
        facts._wakeup.wake()
        await eventually(lambda: all_refuse(relay))
        await write_person(idle_probe)
        assert relay.held is not None
    assert len(await idle_probe.published(PersonRecorded)) == 1


async def write_person(probe: RunningService) -> None:
    """An event on a compacted topic."""
    async with probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        uow.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada", email="ada@nasa.gov"))


async def all_refuse(relay: Relay) -> bool:
    return all("it was restored" in "".join(lane.held) for lane in relay._lanes)
