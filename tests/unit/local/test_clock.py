"""What the clock's commands accept, and when a process counts as quiet."""

from datetime import UTC, datetime, timedelta

import pytest

from muster_local.clock import later, parse_instant
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
    assert _state().busy_with(NOW) is None
    assert _state(next_due=None).busy_with(NOW) is None


@pytest.mark.parametrize(
    "changes", [{"now": NOW - timedelta(seconds=1)}, {"next_due": NOW}, {"outbox": 1}, {"lag": 1}], ids=str
)
def test_a_process_that_is_not_quiet(changes: dict[str, object]) -> None:
    assert _state(**changes).busy_with(NOW)


def test_a_process_whose_due_deadlines_are_held_names_the_command_that_releases_them() -> None:
    held = _state(next_due=NOW, deadlines_held_since=NOW)
    assert "muster deadlines release billing" in (held.busy_with(NOW) or "")
    assert "muster deadlines release" not in (_state(next_due=NOW).busy_with(NOW) or "")
    assert _state(deadlines_held_since=NOW).busy_with(NOW) is None


@pytest.mark.parametrize(
    ("text", "duration"),
    [("90s", timedelta(seconds=90)), ("12h", timedelta(hours=12)), ("2w", timedelta(days=14))],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert later(NOW, text) == NOW + duration


@pytest.mark.parametrize("text", ["", "1", "d", "-1d", "1.5h", "1y"])
def test_a_text_that_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=f"--by {text}: must be a whole number"):
        later(NOW, text)


@pytest.mark.parametrize("text", ["99999999d", "9999999999d", "9" * 5_000 + "w"])
def test_a_duration_that_leads_beyond_the_last_year_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=f"--by {text}: must lead to an instant before the year 10000"):
        later(NOW, text)


def test_instants() -> None:
    assert parse_instant("2025-08-06T02:00:00+02:00") == NOW


@pytest.mark.parametrize(
    "text", ["yesterday", "2025-08-06T00:00:00", "2025-13-01T00:00:00Z", "9999-12-31T23:00:00-02:00"]
)
def test_a_text_that_is_not_an_instant_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=f"--to {text}: must "):
        parse_instant(text)
