"""The consumer applies each event once and in order; a gap parks one agency's stream alone."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import SeatRevoked
from muster_local.servers import kafka_at
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.looks import seat
from tests.integration.runtime.core.probe.service import build_answering
from tests.integration.runtime.core.streams import TOPIC, at, effects, holds, last_sequence, parked, waiting
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner
from tests.support.topics import Producer


async def test_a_repeated_event_is_applied_once(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    with capture_logs() as logs:
        await probe.producer.put(first, seat("NASA", "a"))
        await probe.publish(seat("NASA", "b"))
        await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
        await eventually(lambda: [line for line in logs if line["event"] == "batch_applied"])
    assert {topic for line in logs for topic in line.get("topics", ())} == {TOPIC}


async def test_a_transactions_marker_does_not_count_as_lag(probe: RunningService) -> None:
    """It has the offset after the last record; a consumer that counted it as lag would end its process."""
    settings = probe.runtime.settings
    async with Producer(kafka_at(settings.kafka_bootstrap), settings.topic_prefix, "tests") as producer:
        await producer.publish([seat("NASA", "a")], probe.clock.now())
    await eventually(lambda: holds(effects(probe, "NASA"), ["a"]))
    consumer = probe.process.consumer
    assert consumer is not None

    async def marker_is_there() -> bool:
        ends: dict[Any, int] = await consumer.ends.end_offsets(list(consumer._client().assignment()))
        return sum(ends.values()) == 2

    await eventually(marker_is_there)
    await eventually(lambda: holds(consumer.lag(), 0))


async def test_a_gap_parks_the_agency_and_no_other(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(at(first, 3), seat("NASA", "c"))
    await probe.publish(seat("DOE", "other"))
    await eventually(lambda: holds(effects(probe, "DOE"), ["other"]))
    assert "sequence 2 was expected, but 3 arrived" in await eventually(lambda: parked(probe, "NASA"))
    assert await effects(probe, "NASA") == ["a"]


async def test_the_first_event_of_a_stream_must_be_number_one(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("DOE", "a"))
    await probe.producer.put(at(first._replace(agency_id="NASA"), 2), seat("NASA", "b"))
    assert "sequence 1 was expected" in await eventually(lambda: parked(probe, "NASA"))


@pytest.mark.parametrize(("last", "first"), [(1, 2), (2, 2)])
async def test_a_higher_epoch_is_taken_where_it_repeats_or_continues(
    probe: RunningService, last: int, first: int
) -> None:
    known = [f"{number}" for number in range(1, last + 1)]
    envelopes = await probe.publish(*(seat("NASA", name) for name in known))
    await probe.producer.put(at(envelopes[0], first)._replace(epoch=2), seat("NASA", "restored"))
    await eventually(lambda: holds(effects(probe, "NASA"), [*known, "restored"]))
    await probe.producer.put(at(envelopes[0], 3), seat("NASA", "of the epoch before"))
    await probe.publish(seat("DOE", "marker"))
    await eventually(lambda: holds(effects(probe, "DOE"), ["marker"]))
    assert await effects(probe, "NASA") == [*known, "restored"]
    assert await parked(probe, "NASA") is None


@pytest.mark.parametrize(("known", "epoch", "sequence", "expected"), [(1, 2, 4, 2), (0, 2, 50, 1)])
async def test_a_higher_epoch_that_skips_is_a_gap_until_it_is_accepted(
    probe: RunningService, known: int, epoch: int, sequence: int, expected: int
) -> None:
    (first,) = await probe.publish(seat("NASA" if known else "DOE", "a"))
    late = at(first._replace(agency_id="NASA", epoch=epoch), sequence)
    await probe.producer.put(late, seat("NASA", "restored"))
    reason = await eventually(lambda: parked(probe, "NASA"))
    assert f"sequence {expected} was expected, but {sequence} arrived" in reason
    gap = {"waiting": sequence, "reason": "lost with the old server"}
    accepted = await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=gap)
    assert accepted.status_code == 200
    assert accepted.json()["applied"]["epoch"] < epoch  # so that its first event still raises an alert
    assert (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json() == {"parked": False, "reason": None}
    assert (await effects(probe, "NASA"))[-1] == "restored"
    assert await probe.admin.fetchval("select count(*) from audit where command = 'AcceptGap'") == 1
    assert await probe.admin.fetchval("select epoch from applied where agency_id = 'NASA'") == epoch


async def test_events_in_two_partitions_are_applied_by_their_position(probe: RunningService) -> None:
    """As after partitions were added: the new one was read first. An unreadable record keeps its place."""
    (first,) = await probe.publish(seat("DOE", "a"))
    first = first._replace(agency_id="NASA")
    await probe.producer.put(at(first, 4), seat("NASA", "4"), partition=0)
    await eventually(lambda: parked(probe, "NASA"))
    await probe.producer.put(at(first, 6), seat("NASA", "6"), partition=1)
    await probe.producer.put_raw(TOPIC, key=b"NASA", value=b"junk", headers=[], partition=1)
    await eventually(lambda: holds(waiting(probe), 3))
    for sequence in (1, 2, 3, 5):
        await probe.producer.put(at(first, sequence), seat("NASA", f"{sequence}"), partition=0)
    await eventually(lambda: holds(parked(probe, "NASA"), "header ce_specversion is missing"))
    assert await effects(probe, "NASA") == ["1", "2", "3", "4", "5", "6"]
    assert (await discard(probe, "NASA")).json() == {"left": 0}
    assert await parked(probe, "NASA") is None


async def test_an_unknown_type_is_acknowledged_and_its_sequence_counts(probe: RunningService) -> None:
    revoked = SeatRevoked(agency_id="NASA", seat_id="a", subject_ref="sub_1", reason="requested")
    await probe.publish(seat("NASA", "a"), revoked, seat("NASA", "b"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
    assert await last_sequence(probe, "NASA") == 3
    assert await parked(probe, "NASA") is None


async def test_what_follows_from_an_event_carries_its_origin(run_service: ServiceRunner) -> None:
    answering = await run_service(build_answering, Settings)
    withdrawn = AgencyWithdrawn(
        agency_id="NASA", enrollment_id="enr_1", reason="test", withdrawn_at=answering.clock.now()
    )
    (cause,) = await answering.publish(withdrawn)
    (answer,) = await eventually(lambda: answering.published(SeatRevoked))
    assert answer.envelope.correlation_id == cause.correlation_id
    assert answer.envelope.causation_id == cause.id
