"""Encoding and decoding an event, compared with pydantic alone on the same data as one JSON document."""

from collections.abc import Callable
from time import process_time
from timeit import repeat
from typing import Any

from pydantic import BaseModel

from muster_contracts import Envelope, Event, decode, encode, write_headers, write_run_headers
from muster_contracts.billing import TermStarted
from muster_contracts.entitlements import SeatAssigned
from muster_contracts.testing import golden_records
from tests.bench.report import Measurement

REPEATS = 5

# Events of one transaction and type, which the outbox stores together.
RUN = 100


def measure(events: int) -> list[Measurement]:
    """CPU time per event: the best of several repeats, since disturbances only add."""
    return [line for event_class in (SeatAssigned, TermStarted) for line in _measure(event_class, events)]


def _measure(event_class: type[Event], events: int) -> list[Measurement]:
    golden = next(g for g in golden_records() if type(g.event) is event_class and g.example == "typical")
    envelope, event, headers, value = golden.envelope, golden.event, golden.record.headers, golden.record.value
    document = _document(event_class)
    whole = document(**envelope._asdict(), data=event)
    text = whole.model_dump_json().encode()

    def encode_alone() -> None:
        write_headers(envelope)
        encode(event)

    def encode_run() -> None:
        for _ in write_run_headers(envelope, event_class.topic, RUN):
            encode(event)

    name, aim = event_class.__name__, "1.5 × the limit, 6 µs"
    encoding = _microseconds(lambda: whole.__pydantic_serializer__.to_json(whole), events)
    decoding = _microseconds(lambda: document.model_validate_json(text), events)
    return [
        Measurement(f"encode {name}", _microseconds(encode_alone, events), encoding, "µs", aim),
        Measurement(
            f"encode {name} in a run of {RUN}", _microseconds(encode_run, events // RUN) / RUN, encoding, "µs", aim
        ),
        Measurement(f"decode {name}", _microseconds(lambda: decode(headers, value), events), decoding, "µs", aim),
    ]


def _document(event_class: type[Event]) -> type[BaseModel]:
    """A model of the envelope's attributes and the data together."""
    fields: dict[str, Any] = {**Envelope.__annotations__, "data": event_class}
    return type("Document", (BaseModel,), {"__annotations__": fields, "__module__": __name__})


def _microseconds(work: Callable[[], object], events: int) -> float:
    return min(repeat(work, number=events, repeat=REPEATS, timer=process_time)) / events * 1_000_000
