"""How `muster status` speaks of a process that was restarted."""

from datetime import timedelta

import pytest

from muster_local.home import ProcessState
from muster_local.status import _ago, _last_words
from muster_runtime.clock import SystemClock


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (timedelta(seconds=-3), "0 s ago"),  # the clock was set back
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=14, seconds=59), "14 min ago"),
        (timedelta(hours=23, minutes=59), "23 h ago"),
        (timedelta(days=3), "3 d ago"),
    ],
)
def test_how_long_ago(passed: timedelta, shown: str) -> None:
    assert _ago(passed) == shown


def test_a_restarted_process_is_named_with_its_end_and_its_last_lines() -> None:
    process = ProcessState(
        name="billing",
        address="http://127.0.0.1:1",
        pid=2,
        restarts=1,
        last_exit="killed by SIGKILL",
        last_exit_at=SystemClock().now() - timedelta(minutes=14, seconds=1),
        last_lines=["its last line"],
    )
    said, line = _last_words(process)
    assert said == "\n[yellow]billing restarted 1×[/yellow] (killed by SIGKILL, 14 min ago)"
    assert str(line) == "its last line"
