"""What the clock's commands take, and when a process counts as quiet."""

from datetime import UTC, datetime, timedelta

import pytest

from muster_local.clock import parse_duration, parse_instant
from muster_local.coordinator import ProcessState
from muster_operator.failures import BadInput

NOW = datetime(2025, 8, 6, tzinfo=UTC)


def _state(**changes: object) -> ProcessState:
    quiet = {
        "service": "billing",
        "instance": "billing-1",
        "now": NOW,
        "next_due": NOW + timedelta(seconds=1),
        "outbox": 0,
        "lag": 0,
        "activity": 7,
    }
    return ProcessState.model_validate(quiet | changes)


def test_a_quiet_process() -> None:
    assert _state().unrest(NOW) is None
    assert _state(next_due=None).unrest(NOW) is None


@pytest.mark.parametrize(
    "changes", [{"now": NOW - timedelta(seconds=1)}, {"next_due": NOW}, {"outbox": 1}, {"lag": 1}], ids=str
)
def test_a_process_that_is_not_quiet(changes: dict[str, object]) -> None:
    assert _state(**changes).unrest(NOW)


@pytest.mark.parametrize(
    ("text", "duration"),
    [("90s", timedelta(seconds=90)), ("12h", timedelta(hours=12)), ("2w", timedelta(days=14))],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "1", "d", "-1d", "1.5h", "1y"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)


def test_instants() -> None:
    assert parse_instant("2025-08-06T02:00:00+02:00") == NOW


@pytest.mark.parametrize("text", ["yesterday", "2025-08-06T00:00:00", "2025-13-01T00:00:00Z"])
def test_what_is_not_an_instant(text: str) -> None:
    with pytest.raises(BadInput):
        parse_instant(text)
