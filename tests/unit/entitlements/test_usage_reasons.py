"""The reason why a record of use is parked names the field and the rule, and never what a producer wrote."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from muster_entitlements.domain.usage import EVENT_TYPE, check_time, read_record
from muster_entitlements.repository.usage_intake import StoredRecord
from muster_entitlements.workers import usage_batches
from muster_entitlements.workers.usage_batches import Batch
from muster_runtime.errors import InvalidInput

STRUCTURED = [("content-type", b"application/cloudevents+json")]
ADDRESS = "ada.canary@nasa.gov"


def event(**data: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/a",
        "type": EVENT_TYPE,
        "time": "2025-10-08T00:00:00Z",
        "data": {"agency_id": "NASA", "subject_ref": f"sub_{'a' * 32}", "feature": "deep-research"} | data,
    }


def stored(value: str) -> StoredRecord:
    return StoredRecord("usage", 0, 1, ADDRESS.encode(), STRUCTURED, value.encode())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (json.dumps(event(subject_ref=ADDRESS)), "data.subject_ref must be sub_ and 32 hexadecimal digits"),
        (json.dumps(event(subject_ref={"email": ADDRESS})), "data.subject_ref must be sub_"),
        (json.dumps(event(agency_id=ADDRESS)), "data.agency_id must be an agency's ID"),
        (json.dumps(event() | {"data": f"{ADDRESS} used it"}), "data must be an object"),
        (json.dumps(event() | {"time": ADDRESS}), "time must be an instant"),
        (json.dumps([ADDRESS]), "event must be a CloudEvent"),
        (ADDRESS, "value must be JSON"),
    ],
)
async def test_the_reason_why_a_record_is_parked_names_nobody(value: str, reason: str) -> None:
    batch = await Batch.read([stored(value)])
    found = usage_batches.reason_of(batch.parked[0])
    assert found.startswith(reason)
    assert ADDRESS not in found


async def test_the_reason_of_a_record_that_breaks_the_reader_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError(ADDRESS)

    monkeypatch.setattr(usage_batches, "read_record", breaks)
    batch = await Batch.read([stored("{}")])
    assert usage_batches.reason_of(batch.parked[0]) == "record must be readable, and raised RuntimeError"


def test_a_record_with_a_batch_is_parked_for_being_one() -> None:
    headers = [("content-type", b"application/cloudevents-batch+json; charset=utf-8")]
    record = StoredRecord("usage", 0, 1, b"NASA", headers, json.dumps([event()]).encode())
    with pytest.raises(InvalidInput, match="must be of one event: a batch is accepted only over HTTP") as refusal:
        read_record(record)
    assert refusal.value.field == "content-type"


def test_the_rule_for_use_in_the_future_states_its_minute_and_the_present_instant() -> None:
    now = datetime(2025, 10, 8, tzinfo=UTC)
    with pytest.raises(InvalidInput) as refusal:
        check_time(now + timedelta(minutes=2), now, now)
    rule = "must be at most a minute in the future: now is 2025-10-08T00:00:00Z"
    assert refusal.value.extensions["errors"] == [{"field": "time", "value": "2025-10-08T00:02:00Z", "rule": rule}]
