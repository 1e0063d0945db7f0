"""Applied batches in the log: the first at once, and under load one line per second."""

from typing import Any

from structlog.testing import capture_logs

from muster_runtime.messaging.consumer.applied_log import AppliedLog
from tests.support.eventually import eventually


def lines(logs: Any) -> list[tuple[dict[str, int], int]]:
    return [(line["topics"], line["batches"]) for line in logs if line["event"] == "batch_applied"]


async def test_batches_are_logged_at_once_and_then_together_once_a_second() -> None:
    applied = AppliedLog({"x.seat": "seat", "x.term": "term"})
    with capture_logs() as logs:
        applied.note(["x.seat", "x.seat", "x.term"])
        assert lines(logs) == [({"seat": 2, "term": 1}, 1)]
        for _ in range(1_000):
            applied.note(["x.seat"])
        assert len(lines(logs)) == 1
        await eventually(lambda: len(lines(logs)) == 2)
        assert lines(logs)[1] == ({"seat": 1_000}, 1_000)
        applied.note(["x.term"])
        applied.close()
        applied.close()
        assert lines(logs)[2:] == [({"term": 1}, 1)]


async def test_after_a_quiet_second_a_batch_is_logged_at_once_again() -> None:
    applied = AppliedLog({"x.seat": "seat"})
    with capture_logs() as logs:
        applied.note(["x.seat"])
        await eventually(lambda: applied._pause is None)
        applied.note(["x.seat"])
        assert len(lines(logs)) == 2
        applied.close()
