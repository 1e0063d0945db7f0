"""For tests of producers and subscribers, without Kafka: valid events, records and golden records."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from muster_contracts.codec import encode
from muster_contracts.envelope import Envelope, Headers, event_id, source_of, write_headers
from muster_contracts.event import Event, event_types

E = TypeVar("E", bound=Event)

Example = Literal["typical", "edge"]
EXAMPLES: tuple[Example, ...] = ("typical", "edge")


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as a producer writes it and a subscriber gets it."""

    topic: str
    key: bytes
    headers: Headers
    value: bytes | None


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """A record that every subscriber must be able to read, and what it holds."""

    example: Example
    event: Event
    envelope: Envelope
    record: Record


def build(event_class: type[E], *, example: Example = "typical", **overrides: Any) -> E:
    """A valid event made of its fields' examples, the first (typical) or the last (edge) of each.

    Raises pydantic.ValidationError when an override breaks a rule of the event.
    """
    position = EXAMPLES.index(example) and -1
    fields = {name: field.examples[position] for name, field in event_class.model_fields.items() if field.examples}
    return event_class.model_validate(fields | overrides)


def record(
    event: Event,
    *,
    sequence: int = 1,
    epoch: int = 1,
    time: datetime = datetime(2025, 8, 6, tzinfo=UTC),
    correlation_id: str = "req_01987b3e0000700080000000000000fa",
    causation_id: str | None = None,
    traceparent: str | None = None,
) -> Record:
    """The record of an event, as the `sequence`th of its stream."""
    envelope = _envelope(event, sequence, epoch, time, correlation_id, causation_id, traceparent)
    return _record(event, envelope)


def golden_records() -> Iterator[GoldenRecord]:
    """Two records of each event type: a typical one, and an edge case with all that is optional left out."""
    for event_class in event_types().values():
        typical = build(event_class)
        envelope = _envelope(
            typical,
            sequence=7,
            epoch=1,
            time=datetime(2025, 8, 6, tzinfo=UTC),
            correlation_id="req_01987b3e0000700080000000000000fa",
            causation_id=event_id("muster.enrollment.agency", typical.agency_id, 1, 3),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        yield GoldenRecord("typical", typical, envelope, _record(typical, envelope))

        edge = build(event_class, example="edge")
        envelope = _envelope(
            edge,
            sequence=2**63 - 1,
            epoch=12,
            time=datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
            correlation_id="anfrage-süd-1",
            causation_id=None,
            traceparent=None,
        )
        yield GoldenRecord("edge", edge, envelope, _record(edge, envelope))


def _envelope(
    event: Event,
    sequence: int,
    epoch: int,
    time: datetime,
    correlation_id: str,
    causation_id: str | None,
    traceparent: str | None,
) -> Envelope:
    return Envelope(
        id=event_id(event.topic, event.agency_id, epoch, sequence),
        source=source_of(event.topic),
        type=event.event_type,
        time=time,
        agency_id=event.agency_id,
        epoch=epoch,
        sequence=sequence,
        correlation_id=correlation_id,
        causation_id=causation_id,
        traceparent=traceparent,
    )


def _record(event: Event, envelope: Envelope) -> Record:
    return Record(event.topic, event.record_key.encode(), write_headers(envelope), encode(event))
