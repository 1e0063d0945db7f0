"""The stream tracker recognizes new events, duplicates, gaps, and new epochs in any order and with repetition."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts import Duplicate, Gap, New, NewEpoch, Position, StreamTracker, judge

SEATS = "muster.entitlements.seat"
SNAPSHOTS = "muster.entitlements.snapshot"


@pytest.mark.parametrize(
    ("last", "seen", "sighting"),
    [
        (None, (1, 1), New()),
        (None, (1, 2), Gap(1, 1)),
        (None, (1, 900), Gap(1, 899)),
        (None, (4, 17), Gap(1, 16)),
        (None, (2, 50), Gap(1, 49)),
        (None, (4, 1), New()),
        ((1, 1), (1, 1), Duplicate()),
        ((1, 5), (1, 3), Duplicate()),
        ((1, 5), (1, 6), New()),
        ((1, 5), (1, 7), Gap(6, 6)),
        ((1, 5), (2, 1), NewEpoch(Position(1, 5))),
        ((1, 5), (2, 5), NewEpoch(Position(1, 5))),
        ((1, 5), (2, 6), NewEpoch(Position(1, 5))),
        # If the new epoch began with 8, that is missing, and cannot be noticed.
        ((1, 10), (2, 9), NewEpoch(Position(1, 10))),
        ((1, 10), (2, 14), Gap(11, 13)),
        ((1, 5), (3, 40), Gap(6, 39)),
        ((2, 1), (1, 9), Duplicate()),
    ],
)
def test_an_event_is_judged(last: tuple[int, int] | None, seen: tuple[int, int], sighting: object) -> None:
    assert judge(Position(*last) if last else None, Position(*seen)) == sighting


def test_a_compacted_topic_skips_numbers_and_repeats_none() -> None:
    tracker = StreamTracker()
    assert tracker.see(SNAPSHOTS, "NASA", 1, 40) == New()
    assert tracker.see(SNAPSHOTS, "NASA", 1, 44) == New()
    assert tracker.see(SNAPSHOTS, "NASA", 1, 43) == Duplicate()
    assert tracker.see(SNAPSHOTS, "NASA", 2, 60) == NewEpoch(Position(1, 44))


def test_a_gap_is_not_recorded_until_it_is_accepted() -> None:
    tracker = StreamTracker()
    tracker.see(SEATS, "NASA", 1, 1)
    assert tracker.see(SEATS, "NASA", 1, 4) == Gap(2, 3)
    assert tracker.see(SEATS, "NASA", 1, 4) == Gap(2, 3)
    tracker.accept(SEATS, "NASA", 1, 4)
    assert tracker.see(SEATS, "NASA", 1, 5) == New()


def test_streams_are_independent_of_each_other() -> None:
    tracker = StreamTracker()
    assert tracker.see(SEATS, "NASA", 1, 1) == New()
    assert tracker.see(SEATS, "NIH", 1, 1) == New()
    assert tracker.see("muster.billing.term", "NASA", 1, 1) == New()
    assert tracker.see(SEATS, "NIH", 1, 2) == New()


@given(st.integers(min_value=1, max_value=60), st.randoms(use_true_random=False), st.integers(0, 60))
def test_each_event_is_new_once_whatever_is_redelivered(count: int, chance: random.Random, kills: int) -> None:
    """A broker redelivers from any earlier offset, and the subscriber restarts from its state."""
    tracker, offset, applied = StreamTracker(), 1, []
    while offset <= count:
        if isinstance(tracker.see(SEATS, "NASA", 1, offset), New):
            applied.append(offset)
        offset += 1
        if kills and chance.random() < 0.2:
            kills -= 1
            tracker = StreamTracker.from_json(tracker.to_json())
            offset = chance.randint(1, offset)
    assert applied == list(range(1, count + 1))


@given(st.sets(st.integers(min_value=1, max_value=40), min_size=1), st.integers(1, 43))
def test_whatever_is_lost_shows_as_a_gap(lost: set[int], restored: int) -> None:
    """This holds also if the epoch is raised at the number `restored`."""
    tracker = StreamTracker()
    first_lost = min(lost)
    missing = next(number for number in range(first_lost, 43) if number not in lost)
    sightings = [
        tracker.see(SEATS, "NASA", 1 if number < restored else 2, number)
        for number in range(1, missing + 1)
        if number not in lost
    ]
    assert all(isinstance(sighting, New | NewEpoch) for sighting in sightings[:-1])
    assert sightings[-1] == Gap(first_lost, missing - 1)


def test_the_state_is_small_and_survives_serialization() -> None:
    tracker = StreamTracker()
    for number in range(1, 401):
        tracker.see(SEATS, f"A{number}", 1, 1)
    state = tracker.to_json()
    assert len(state) < 60 * 400
    assert StreamTracker.from_json(state).positions == tracker.positions


@pytest.mark.parametrize("state", ["", "{", '{"a": 1}', '[["a", "b", 1]]', '[["a", "b", 1, null]]'])
def test_an_invalid_state_is_refused(state: str) -> None:
    with pytest.raises(ValueError, match="not a tracker's state"):
        StreamTracker.from_json(state)
