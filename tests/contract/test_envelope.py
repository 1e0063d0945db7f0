"""Record headers: every envelope survives them, and every malformed record is refused by name."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_contracts import (
    Envelope,
    MalformedRecord,
    event_id,
    read_headers,
    source_of,
    write_headers,
    write_run_headers,
)

OFFSETS = st.integers(min_value=-14 * 60, max_value=14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

# Within a day of either end, an offset can lead outside a datetime's range.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC).replace(tzinfo=None)
LATEST = datetime(9999, 12, 30, tzinfo=UTC).replace(tzinfo=None)

# An attribute's value: printable, and not empty.
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=60)

ENVELOPES = st.builds(
    Envelope,
    id=TEXTS,
    source=TEXTS,
    type=TEXTS,
    time=st.datetimes(min_value=EARLIEST, max_value=LATEST, timezones=OFFSETS | st.just(UTC)),
    agency_id=TEXTS,
    epoch=st.integers(min_value=1, max_value=2**31 - 1),
    sequence=st.integers(min_value=1, max_value=2**63 - 1),
    correlation_id=TEXTS,
    causation_id=st.none() | TEXTS,
    traceparent=st.none() | TEXTS,
)

EXAMPLE = Envelope(
    id=event_id("muster.billing.term", "NASA", 1, 7),
    source=source_of("muster.billing.term"),
    type="muster.billing.TermStarted.v1",
    time=datetime(2025, 8, 6, tzinfo=UTC),
    agency_id="NASA",
    epoch=1,
    sequence=7,
    correlation_id="req_1",
)


@given(ENVELOPES)
def test_an_envelope_survives_the_round_trip_through_headers(envelope: Envelope) -> None:
    read = read_headers(write_headers(envelope))
    assert read == envelope
    assert read.time.tzinfo is UTC


@given(st.lists(st.integers(min_value=1, max_value=2**63 - 1), min_size=2))
def test_sequences_sort_as_text_in_numeric_order(sequences: list[int]) -> None:
    ids = {sequence: event_id("muster.billing.term", "NASA", 1, sequence) for sequence in sequences}
    assert sorted(ids, key=lambda sequence: ids[sequence]) == sorted(ids)


def test_the_headers_of_an_event_are_cloudevents_in_kafkas_binary_mode() -> None:
    assert dict(write_headers(EXAMPLE)) == {
        "ce_specversion": b"1.0",
        "ce_id": b"muster.billing.term/NASA/1/00000000000000000007",
        "ce_source": b"/muster/billing",
        "ce_type": b"muster.billing.TermStarted.v1",
        "ce_time": b"2025-08-06T00:00:00Z",
        "ce_partitionkey": b"NASA",
        "ce_epoch": b"1",
        "ce_sequence": b"00000000000000000007",
        "ce_correlationid": b"req_1",
        "content-type": b"application/json",
    }


@given(ENVELOPES, st.integers(min_value=0, max_value=50))
def test_a_runs_headers_are_the_same_as_event_by_event(envelope: Envelope, count: int) -> None:
    topic = "muster.entitlements.seat"
    envelope = envelope._replace(sequence=min(envelope.sequence, 2**63 - 50))
    runs = [read_headers(headers) for headers in write_run_headers(envelope, topic, count)]
    assert [read.sequence for read in runs] == list(range(envelope.sequence, envelope.sequence + count))
    assert [read.id for read in runs] == [
        event_id(topic, envelope.agency_id, envelope.epoch, read.sequence) for read in runs
    ]
    assert {(read.type, read.time, read.causation_id) for read in runs} <= {
        (envelope.type, envelope.time, envelope.causation_id)
    }


def replaced(name: str, value: bytes | None) -> Sequence[tuple[str, bytes]]:
    """The example's headers with one of them replaced or omitted."""
    kept = [header for header in write_headers(EXAMPLE) if header[0] != name]
    return kept if value is None else [*kept, (name, value)]


@pytest.mark.parametrize(
    "name",
    [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "ce_partitionkey",
        "ce_epoch",
        "ce_sequence",
        "ce_correlationid",
    ],
)
def test_a_missing_header_is_named(name: str) -> None:
    with pytest.raises(MalformedRecord, match=f"header {name} is missing"):
        read_headers(replaced(name, None))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("ce_specversion", b"0.3", "not 1.0"),
        ("ce_id", b"\xff", "printable UTF-8"),
        ("ce_type", b"\xc3\x28", "printable UTF-8"),
        ("ce_causationid", b"\xff", "printable UTF-8"),
        ("ce_traceparent", b"\xff", "printable UTF-8"),
        ("ce_time", b"yesterday", "RFC 3339 instant with a time zone"),
        ("ce_time", b"2025-08-06T00:00:00", "RFC 3339 instant with a time zone"),
        ("ce_time", b"20250806T000000Z", "RFC 3339 instant with a time zone"),
        ("ce_time", b"2025-W32-3T00:00:00Z", "RFC 3339 instant with a time zone"),
        ("ce_time", b"2025-08-06T00:00Z", "RFC 3339 instant with a time zone"),
        ("ce_time", b"0001-01-01T00:00:00+14:00", "RFC 3339 instant with a time zone"),
        ("ce_epoch", b"0", "a whole number from 1"),
        ("ce_epoch", b"", "a whole number from 1"),
        ("ce_sequence", b"-1", "a whole number from 1"),
        ("ce_sequence", b"1_0", "a whole number from 1"),
        ("ce_sequence", b"1.5", "a whole number from 1"),
        ("ce_sequence", b"\xd9\xa3", "a whole number from 1"),
        ("ce_sequence", b"100000000000000000000", "a whole number from 1 to 9223372036854775807"),
        ("ce_sequence", b"9223372036854775808", "a whole number from 1 to 9223372036854775807"),
        ("ce_sequence", b"1" * 5000, "a whole number from 1 to 9223372036854775807"),
        ("ce_epoch", b"2147483648", "a whole number from 1 to 2147483647"),
        ("ce_id", b"", "1 to 256 bytes"),
        ("ce_id", b"a\0b", "printable"),
        ("ce_id", b"x" * 257, "1 to 256 bytes"),
        ("ce_type", b"muster.billing.TermStarted.v" + b"9" * 5000, "1 to 256 bytes"),
        ("ce_time", b"2025-08-06T00:00:00." + b"0" * 1_000_000 + b"Z", "RFC 3339"),
    ],
)
def test_a_malformed_header_is_refused_by_name_and_rule(name: str, value: bytes, rule: str) -> None:
    with pytest.raises(MalformedRecord, match=rf"header {name} is .*{rule}"):
        read_headers(replaced(name, value))


@pytest.mark.parametrize("name", ["ce_sequence", "ce_partitionkey", "ce_traceparent"])
def test_a_header_that_is_given_twice_is_refused(name: str) -> None:
    """One reader would use the first value, and another the last."""
    with pytest.raises(MalformedRecord, match=f"header {name} appears 2 times"):
        read_headers([(name, b"1"), *replaced(name, b"1")])
    assert read_headers([*write_headers(EXAMPLE), ("trace", b"1"), ("trace", b"2")]) == EXAMPLE


@pytest.mark.parametrize("name", [name for name, _ in write_headers(EXAMPLE) if name != "content-type"])
def test_a_refusal_shows_the_escaped_beginning_of_a_value(name: str) -> None:
    with pytest.raises(MalformedRecord) as refused:
        read_headers(replaced(name, b"\x1b[31m\n\xff" * 100_000))
    assert "700,000 in all" in str(refused.value)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in write_headers(EXAMPLE)]), st.none() | st.binary())))
def test_whatever_the_headers_hold_only_malformed_record_is_raised(headers: list[tuple[str, bytes]]) -> None:
    with suppress(MalformedRecord):
        read_headers([*write_headers(EXAMPLE), *headers])
