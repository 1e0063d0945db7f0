"""Seats are counted from their events up to any position, and whatever prevents a correction is named."""

from dataclasses import replace

import pytest

from muster_entitlements.workers.rebuild import Account, Changes

Entry = tuple[int, int, int]  # epoch, sequence, change

ACCOUNT = Account("NASA", in_use=3, revoking=0, cap=5, limit_met=False, held=3, epoch=1, sequence=9)


def changes(*entries: Entry) -> Changes:
    counted = Changes()
    for entry in entries:
        counted.add(*entry)
    return counted


GIVEN_OUT = ((1, 1, 1), (1, 2, 1), (1, 3, 0), (1, 4, -1))


@pytest.mark.parametrize(("sequence", "held"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 1), (5, None)])
def test_each_position_has_its_count(sequence: int, held: int | None) -> None:
    assert changes(*GIVEN_OUT).held(1, sequence) == held


def test_a_repeated_event_counts_once() -> None:
    assert changes(*GIVEN_OUT[:2], *GIVEN_OUT).held(1, 4) == 1


@pytest.mark.parametrize("entries", [GIVEN_OUT[1:], (*GIVEN_OUT[:1], *GIVEN_OUT[2:])])
def test_after_a_gap_no_count_is_known(entries: tuple[Entry, ...]) -> None:
    assert changes(*entries).held(1, 4) is None


def test_events_that_a_restored_producer_lost_do_not_count() -> None:
    restored = changes(*GIVEN_OUT, (2, 2, 0))
    assert restored.held(2, 2) == 1
    assert restored.held(2, 3) is None
    # The topic is ahead of its producer, which was restored without a raised epoch.
    assert restored.held(1, 2) is None
    # It was restored, and has published nothing since.
    assert changes(*GIVEN_OUT).held(2, 2) == 2
    # All of its earlier events are lost.
    assert changes(*GIVEN_OUT, (2, 1, 1)).held(2, 1) == 1


def test_a_later_epoch_closes_a_gap_at_or_after_its_first_position() -> None:
    assert changes(*GIVEN_OUT[:2], GIVEN_OUT[3], (2, 3, 1)).held(2, 3) == 3
    assert changes(*GIVEN_OUT[:2], (2, 4, 1)).held(2, 4) is None


def test_a_count_that_the_topic_and_the_seats_confirm_is_right() -> None:
    assert ACCOUNT.difference(3) is None
    assert replace(ACCOUNT, in_use=1, revoking=2).difference(3) is None


@pytest.mark.parametrize(
    ("account", "told", "obstacle"),
    [
        (replace(ACCOUNT, in_use=4), 3, ""),
        (replace(ACCOUNT, in_use=2), 3, ""),
        (ACCOUNT, None, "the topic lacks events up to 1/9"),
        (replace(ACCOUNT, held=4), 3, "the topic and the seats differ"),
        (replace(ACCOUNT, held=6), 6, "resize the pool first"),
        (replace(ACCOUNT, held=6, revoking=2), 6, ""),
        (replace(ACCOUNT, held=6, revoking=7), 6, "are being revoked"),
    ],
)
def test_an_obstacle_is_named(account: Account, told: int | None, obstacle: str) -> None:
    difference = account.difference(told)
    assert difference is not None
    assert (obstacle in difference.obstacle) if obstacle else not difference.obstacle
