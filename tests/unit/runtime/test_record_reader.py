"""Reading a record: whatever is wrong with it is a defect, never an error, and no future event is accepted."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from muster_contracts.billing import TermEnded, TermStarted
from muster_contracts.entitlements import SeatAssigned
from muster_contracts.testing import build, record
from muster_runtime.messaging import record_reader
from muster_runtime.messaging.record_reader import FUTURE, Record, RecordReader

NOW = datetime(2025, 8, 6, tzinfo=UTC)


class FixedClock:
    """A clock that its reader takes for the real one."""

    virtual = False

    def now(self) -> datetime:
        return NOW


def seat(time: datetime) -> Record:
    made = record(build(SeatAssigned, agency_id="NASA"), time=time)
    return Record(made.topic, "NASA", 0, 0, made.key, made.value, made.headers)


@pytest.mark.parametrize(("ahead", "taken"), [(timedelta(0), True), (FUTURE, True), (FUTURE * 2, False)])
def test_an_event_that_is_still_to_come_is_a_defect(ahead: timedelta, taken: bool) -> None:
    """It would postdate everything that its agency does after it."""
    reader = RecordReader([SeatAssigned], "test", FixedClock())
    item = reader.read(seat(NOW + ahead), reader.latest())
    assert (item.defect is None) is taken
    assert taken or "in the future" in (item.defect or "")


@pytest.mark.parametrize("error", [ValueError, RecursionError, OSError, TimeoutError])
def test_whatever_goes_wrong_while_a_record_is_read_is_its_defect(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error("secret")

    reader = RecordReader([SeatAssigned], "test", FixedClock())
    monkeypatch.setattr(record_reader, "read_headers", fail)
    assert reader.read(seat(NOW), reader.latest()).defect == f"it cannot be read: {error.__name__}"


def test_only_a_type_that_the_release_lacks_is_counted_as_unknown() -> None:
    """A service does not read every type of a topic; it skips one that it should read if its release is too old."""
    reader = RecordReader([TermEnded], "test", FixedClock())
    made = record(build(TermStarted, agency_id="NASA"), time=NOW)
    later = [(name, b"muster.billing.TermMerged.v1" if name == "ce_type" else value) for name, value in made.headers]
    labels = {"service": "test", "topic": TermEnded.topic}
    for headers, unknown in ((made.headers, None), (later, 1)):
        item = reader.read(Record(made.topic, "NASA", 0, 0, made.key, made.value, headers), reader.latest())
        assert (item.event, item.defect) == (None, None)
        assert REGISTRY.get_sample_value("muster_unknown_types_total", labels) == unknown
