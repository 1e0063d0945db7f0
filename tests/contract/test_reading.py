"""Decoding: what a reader tolerates, what it returns as a value, and what it refuses."""

import json
from typing import Any

import pytest

from muster_contracts import (
    Decoded,
    Erasure,
    Event,
    MalformedRecord,
    NewerMajor,
    UnknownType,
    billing,
    decode,
    enrollment,
    entitlements,
    event_types,
)
from muster_contracts.testing import GoldenRecord, Record, build, golden_records, record

GOLDEN = [pytest.param(golden, id=f"{golden.event.event_type}-{golden.example}") for golden in golden_records()]
FACTS = [pytest.param(cls, id=cls.__name__) for cls in event_types().values() if not issubclass(cls, Erasure)]


def with_type(original: Record, event_type: str) -> list[tuple[str, bytes]]:
    return [(name, event_type.encode() if name == "ce_type" else value) for name, value in original.headers]


def read_value(original: Record, **changes: Any) -> Event:
    """The event of a record with some fields of its value changed."""
    decoded = decode(original.headers, json.dumps(json.loads(original.value or b"{}") | changes).encode())
    assert isinstance(decoded, Decoded)
    return decoded.event


@pytest.mark.parametrize("golden", GOLDEN)
def test_golden_record_decodes_to_its_event_and_envelope(golden: GoldenRecord) -> None:
    decoded = decode(golden.record.headers, golden.record.value, golden.record.key)
    assert decoded == Decoded(golden.envelope, golden.event)


@pytest.mark.parametrize("event_class", FACTS)
def test_unknown_fields_are_ignored(event_class: type[Event]) -> None:
    event = build(event_class)
    assert read_value(record(event), added_later={"deep": [1]}) == event


def test_an_enum_is_read_as_an_enum_and_a_later_value_is_kept() -> None:
    suspended = record(build(enrollment.AgencySuspended))
    known = read_value(suspended, reason="atu_lapsed")
    later = read_value(suspended, reason="terms_outdated")
    assert isinstance(known, enrollment.AgencySuspended)
    assert isinstance(later, enrollment.AgencySuspended)
    assert known.reason is enrollment.SuspensionReason.ATU_LAPSED
    assert later.reason == "terms_outdated"


def test_every_closed_list_tolerates_a_later_value() -> None:
    seen = 0
    for event_class in event_types().values():
        schema = event_class.model_json_schema(mode="serialization")
        for name, field in schema.get("properties", {}).items():
            if "enum" in json.dumps(schema.get("$defs", {})) and "$ref" in json.dumps(field) and "anyOf" in field:
                seen += 1
                assert getattr(read_value(record(build(event_class)), **{name: "of-later"}), name) == "of-later"
    assert seen >= 8


def test_an_instant_is_utc_whatever_its_offset_was() -> None:
    overdue = read_value(record(build(billing.PaymentOverdue)), due_at="2025-09-05T02:00:00+02:00")
    assert b'"due_at":"2025-09-05T00:00:00Z"' in (record(overdue).value or b"")


def test_an_unknown_type_is_a_value_not_an_error() -> None:
    original = record(build(billing.TermStarted))
    decoded = decode(with_type(original, "muster.billing.Rebated.v1"), original.value)
    assert isinstance(decoded, UnknownType)
    assert decoded.envelope.type == "muster.billing.Rebated.v1"
    assert isinstance(decode(with_type(original, "org.example.other"), b"\xff"), UnknownType)


@pytest.mark.parametrize(
    "wire_type",
    [
        "muster.billing.TermStarted.v" + "9" * 5000,
        "muster.billing.TermStarted.v" + "9" * 100,
        "muster.billing.TermStarted.v0",
        "muster.billing.TermStarted",
        "muster.",
    ],
)
def test_a_type_that_only_begins_like_one_of_ours_is_refused(wire_type: str) -> None:
    original = record(build(billing.TermStarted))
    with pytest.raises(MalformedRecord, match="header ce_type is") as refused:
        decode(with_type(original, wire_type), original.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("error", [ValueError, RecursionError, OverflowError, OSError, MemoryError])
def test_whatever_goes_wrong_with_a_value_is_the_records_defect(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error("secret of a person")

    original = record(build(billing.TermStarted))
    monkeypatch.setattr(billing.TermStarted, "model_validate_json", fail)
    with pytest.raises(MalformedRecord, match=f"value: {error.__name__}") as refused:
        decode(original.headers, original.value)
    assert "secret" not in str(refused.value)


def test_a_refusal_of_a_value_with_many_faults_is_short() -> None:
    original = record(build(entitlements.EntitlementSnapshotPublished))
    hostile = json.loads(original.value or b"{}") | {"features": [{} for _ in range(50_000)]}
    with pytest.raises(MalformedRecord, match=r"features\.0\..*; and \d+ more") as refused:
        decode(original.headers, json.dumps(hostile).encode())
    assert len(str(refused.value)) < 1500


def test_a_newer_major_is_a_value_that_says_so() -> None:
    original = record(build(billing.TermStarted))
    decoded = decode(with_type(original, "muster.billing.TermStarted.v2"), b'{"new": "shape"}')
    assert isinstance(decoded, NewerMajor)
    assert (decoded.known, decoded.major) == (1, 2)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "value: Invalid JSON"),
        (b"", "value: Invalid JSON"),
        (b"\xff\xfe", "value: Invalid JSON"),
        (b"[]", "value: Input should be an object"),
        (b'{"agency_id": "NASA"}', "seat_id: Field required"),
        (b'{"agency_id": "nasa", "seat_id": "s", "subject_ref": "p"}', "agency_id: String should match pattern"),
        (b'{"agency_id": "NASA", "seat_id": 7, "subject_ref": "p"}', "seat_id: Input should be a valid string"),
        (
            b'{"agency_id": "NIH", "seat_id": "s", "subject_ref": "p"}',
            "agency_id differs from the header ce_partitionkey",
        ),
    ],
)
def test_a_value_that_breaks_the_schema_is_refused_by_field_and_rule(value: bytes | None, complaint: str) -> None:
    original = record(build(entitlements.SeatAssigned))
    with pytest.raises(MalformedRecord, match=complaint):
        decode(original.headers, value)


def test_a_refusal_never_repeats_the_value() -> None:
    original = record(build(entitlements.PersonRecorded))
    with pytest.raises(MalformedRecord) as refused:
        decode(original.headers, b'{"agency_id": "NASA", "subject_ref": "s", "email": ["ada@nasa.example"]}')
    assert "ada@nasa.example" not in str(refused.value)


def test_a_tombstone_needs_its_key() -> None:
    original = record(build(entitlements.PersonErased))
    with pytest.raises(MalformedRecord, match="its key is needed"):
        decode(original.headers, original.value)
    decoded = decode(original.headers, original.value, original.key)
    assert isinstance(decoded, Decoded)
    assert decoded.event == build(entitlements.PersonErased)
