"""When two clocks provably disagree, however slow the connection between them."""

from datetime import UTC, datetime, timedelta

import pytest

from muster_runtime.clock import MAX_SKEW, skew

NOON = datetime(2025, 8, 6, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


@pytest.mark.parametrize("ahead", [timedelta(), MAX_SKEW, -MAX_SKEW])
def test_clocks_within_a_second_agree(ahead: timedelta) -> None:
    assert skew(NOON + ahead, NOON, NOON, NOON + ahead) is None


def test_a_slow_connection_proves_nothing() -> None:
    assert skew(NOON, NOON + HOUR, NOON + HOUR, NOON + HOUR) is None
    assert skew(NOON, NOON, NOON, NOON + HOUR) is None


def test_a_long_wait_for_a_lock_proves_nothing() -> None:
    assert skew(NOON, NOON, NOON + HOUR, NOON + HOUR) is None


@pytest.mark.parametrize("ahead", [MAX_SKEW + INSTANT, -MAX_SKEW - INSTANT])
def test_clocks_further_apart_are_named_with_both_instants(ahead: timedelta) -> None:
    complaint = skew(NOON + ahead, NOON, NOON, NOON + ahead)
    assert complaint is not None
    assert "2025-08-06T12:00:00.000Z" in complaint
    assert ("12:00:01.000Z" if ahead > timedelta() else "11:59:58.999Z") in complaint
