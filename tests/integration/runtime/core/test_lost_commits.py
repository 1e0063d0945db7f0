"""Lost commits that are hard to see: buried under a long run, or repeated with the same time and cause."""

from datetime import UTC, datetime

import pytest

from muster_contracts import event_id
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.messaging.lane import READ_EVENTS
from muster_runtime.scheduling import hold
from tests.integration.runtime.core.relays import (
    are_released,
    burst,
    outbox_is_empty,
    partition,
    publish_and_lose,
    relay_all,
    relaying,
    release_deadlines,
    seat,
    write,
)
from tests.integration.runtime.core.test_restore_guard import held, published_positions, raise_epoch
from tests.support.eventually import eventually
from tests.support.services import RunningService

START = datetime(2025, 8, 6, tzinfo=UTC)


async def test_a_lost_commit_is_found_below_a_long_run_whose_deletes_are_lost_too(idle_probe: RunningService) -> None:
    """The relay takes turns, so the small agency's event is published in the middle of the run before it."""
    big, small = _two_in_one_partition()
    await burst(idle_probe, big, 3 * READ_EVENTS)
    await idle_probe.admin.execute("create table kept as select * from outbox")
    await write(idle_probe, small, "one")
    await relay_all(idle_probe, timeout=60)
    # A replica takes over that has the run, but nothing from the small agency's commit on.
    await idle_probe.admin.execute("delete from stream where agency_id = $1", small)
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await write(idle_probe, small, "two")

    async with relaying(idle_probe) as relay:
        said = await eventually(lambda: held(relay), timeout=60)
    assert f"{SeatAssigned.topic} of {small} has an event at epoch 1, sequence 1" in said

    await raise_epoch(idle_probe)
    await relay_all(idle_probe, timeout=60)
    positions = set(await published_positions(idle_probe))
    assert {(small, 1, 1), (small, 2, 1)} <= positions
    assert {each for each in positions if each[0] == big} == {(big, 1, n) for n in range(1, 3 * READ_EVENTS + 1)}


async def test_a_published_run_that_waits_again_is_no_lost_commit(idle_probe: RunningService) -> None:
    """As if the relay had died between the acknowledgment of a long run and its deletes."""
    await burst(idle_probe, "NASA", 1_000)
    await idle_probe.admin.execute("create table kept as select * from outbox")
    for _ in range(2):
        async with relaying(idle_probe) as relay:
            await eventually(lambda: outbox_is_empty(idle_probe))
            assert relay.held is None
        await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await raise_epoch(idle_probe)
    assert await idle_probe.admin.fetchval("select max(epoch) from outbox") == 1


async def test_an_event_that_differs_from_the_lost_one_in_its_data_alone_is_another_event(
    idle_probe: RunningService,
) -> None:
    """A service applies an event again whose effects it has lost: at the same time, but with new IDs."""
    idle_probe.clock.move(START)
    await publish_and_lose(idle_probe)
    await write(idle_probe, "NASA", "another two")

    async with relaying(idle_probe) as relay:
        assert "NASA has an event at epoch 1, sequence 2" in await eventually(lambda: held(relay))
    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    assert await published_positions(idle_probe) == [("NASA", 1, 1), ("NASA", 1, 2), ("NASA", 2, 2)]


async def test_a_run_that_repeats_one_lost_event_and_replaces_another_gets_new_positions_as_a_whole(
    idle_probe: RunningService,
) -> None:
    """Only the whole run can move to the new epoch, so one event is published twice, with two IDs."""
    idle_probe.clock.move(START)
    await write(idle_probe, "NASA", "one", "two")
    await relay_all(idle_probe)
    await idle_probe.admin.execute("delete from stream")
    await write(idle_probe, "NASA", "one", "another two")

    async with relaying(idle_probe) as relay:
        assert "NASA has an event at epoch 1, sequence 2" in await eventually(lambda: held(relay))
    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    assert await published_positions(idle_probe) == [("NASA", 1, 1), ("NASA", 1, 2), ("NASA", 2, 1), ("NASA", 2, 2)]


async def test_a_published_run_moves_with_an_earlier_one_of_its_stream(idle_probe: RunningService) -> None:
    """In the old epoch, readers would skip it, and then lack its sequence."""
    idle_probe.clock.move(START)
    await write(idle_probe, "NASA", "one")
    await write(idle_probe, "NASA", "two")
    await write(idle_probe, "DOE", "one")
    await idle_probe.admin.execute("create table kept as select * from outbox where agency_id = 'DOE'")
    await relay_all(idle_probe)
    await idle_probe.admin.execute("delete from stream where agency_id = 'NASA'")
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await write(idle_probe, "NASA", "another one")
    await write(idle_probe, "NASA", "two")
    await raise_epoch(idle_probe)
    waiting = await idle_probe.admin.fetch("select agency_id, epoch, first_sequence from outbox order by id")
    assert [tuple(each) for each in waiting] == [("DOE", 1, 1), ("NASA", 2, 1), ("NASA", 2, 2)]


@pytest.mark.parametrize("above", [0, 2])
async def test_an_event_of_a_raised_epoch_that_is_lost_is_published_once(
    idle_probe: RunningService, above: int
) -> None:
    """The next replica has the event and lacks the raised epoch. What it never published gets a new position."""
    await write(idle_probe, "NASA", "one")
    await idle_probe.admin.execute("create table kept as select * from outbox")
    await raise_epoch(idle_probe)
    await relay_all(idle_probe)
    await idle_probe.admin.execute("update epoch set number = 1; update stream set epoch = 1")
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await write(idle_probe, "NASA", "two")

    async with relaying(idle_probe) as relay:
        assert "NASA has an event at epoch 2, sequence 1" in await eventually(lambda: held(relay))
    await raise_epoch(idle_probe, above)
    await relay_all(idle_probe)
    assert await published_positions(idle_probe) == [("NASA", 2, 1), ("NASA", 2, 1), ("NASA", 3, 2)]


async def test_an_event_that_follows_one_of_a_higher_epoch_moves(idle_probe: RunningService) -> None:
    """In the old epoch, readers would skip it, although they wait for its sequence in the higher one."""
    await write(idle_probe, "NASA", "one")
    await write(idle_probe, "NASA", "two")
    await idle_probe.admin.execute("create table kept as select * from outbox")
    await relay_all(idle_probe)
    first = (await idle_probe.published(SeatAssigned))[0].envelope
    again = first._replace(epoch=2, id=event_id(SeatAssigned.topic, "NASA", 2, 1))
    await idle_probe.producer.put(again, seat("NASA", "one"))
    await idle_probe.admin.execute("insert into outbox overriding system value select * from kept")
    await raise_epoch(idle_probe)
    waiting = await idle_probe.admin.fetch("select epoch, first_sequence from outbox order by id")
    assert [tuple(each) for each in waiting] == [(2, 1), (3, 2)]


async def test_deadlines_are_not_released_while_the_topics_show_a_loss(idle_probe: RunningService) -> None:
    await publish_and_lose(idle_probe)
    await write(idle_probe, "EPA", "after the loss")
    async with relaying(idle_probe):
        await eventually(lambda: hold.held_since(idle_probe.admin))
    refused = await release_deadlines(idle_probe)
    said = "raise the epoch or pass the record first" in refused.json()["detail"]
    assert (refused.status_code, said) == (409, True), refused.text
    assert await hold.held_since(idle_probe.admin) is not None

    await raise_epoch(idle_probe)
    assert (await release_deadlines(idle_probe)).status_code == 409  # no relay has compared since
    await relay_all(idle_probe)
    await eventually(lambda: are_released(idle_probe))
    assert await hold.held_since(idle_probe.admin) is None


async def test_a_hold_that_cannot_begin_hides_nothing(idle_probe: RunningService) -> None:
    """Another session holds the row: the relay gives up waiting, says what it found, and tries again."""
    await publish_and_lose(idle_probe)
    await write(idle_probe, "EPA", "after the loss")
    async with relaying(idle_probe) as relay:
        async with idle_probe.admin.transaction():
            await idle_probe.admin.execute("select from epoch for update")
            assert "it was restored" in await eventually(lambda: held(relay))
        await eventually(lambda: hold.held_since(idle_probe.admin), timeout=30)


async def test_the_deadlines_are_held_from_the_moment_at_which_the_loss_is_found(idle_probe: RunningService) -> None:
    """Otherwise, one that is due before an operator raises the epoch would act on facts that are out of date."""
    idle_probe.clock.move(START)
    await publish_and_lose(idle_probe)
    for _ in range(2):  # the database may go back again
        await idle_probe.admin.execute("update epoch set deadlines_held_since = null")
        async with relaying(idle_probe):
            assert await eventually(lambda: hold.held_since(idle_probe.admin)) == START
    audited = await idle_probe.admin.fetch("select actor, command from audit where command = 'HoldDeadlines'")
    assert [tuple(each) for each in audited] == [("probe", "HoldDeadlines")] * 2


def _two_in_one_partition() -> tuple[str, str]:
    names = [f"A{number}" for number in range(20)]
    first, second = [name for name in names if partition(name) == partition("A0")][:2]
    return first, second
