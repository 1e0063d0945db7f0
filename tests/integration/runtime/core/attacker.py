"""Records that no reader can accept: every way in which a header, a value or a key can be wrong."""

import json
import random
from collections import Counter
from typing import Any

from muster_contracts import Envelope, Event, encode, event_id, source_of, topics, write_headers
from muster_contracts.testing import build as example
from muster_runtime.clock import Clock

Headers = list[tuple[str, bytes]]
Hostile = tuple[bytes | None, bytes | None, Headers]

REQUIRED = [
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_partitionkey",
    "ce_epoch",
    "ce_sequence",
    "ce_correlationid",
]

OPTIONAL = ["ce_causationid", "ce_traceparent"]

# How deep a hostile value is nested.
DEEP = 20_000


def envelope_of(cls: type[Event], agency_id: str, sequence: int, clock: Clock) -> Envelope:
    return Envelope(
        id=event_id(cls.topic, agency_id, 1, sequence),
        source=source_of(cls.topic),
        type=cls.event_type,
        time=clock.now(),
        agency_id=agency_id,
        epoch=1,
        sequence=sequence,
        correlation_id="cor_1",
    )


class Attacker:
    """Makes records that no reader can accept, in every way that a header, a value and a key can be wrong."""

    def __init__(self, dice: random.Random, clock: Clock) -> None:
        self._dice = dice
        self._clock = clock
        self.ways: Counter[str] = Counter()

    def record(self, cls: type[Event], agency_id: str) -> Hostile:
        """A worthless record at the next position of an agency's stream; with the agency's own key, or none."""
        event = example(cls, agency_id=agency_id)
        headers = write_headers(envelope_of(cls, agency_id, 2, self._clock))
        ways = [self._without, self._doubled, self._huge, self._misformed, self._value, self._key, self._major]
        ways += [self._optional, self._tombstone]
        if not topics()[cls.topic].compacted:  # Kafka itself refuses a null key where it compacts
            ways += [self._gap, self._keyless]
        way = self._dice.choice(ways)
        self.ways[way.__name__] += 1
        key, value, headers = way(event.record_key.encode(), encode(event), headers)
        return key, value, self.beside(headers)

    def beside(self, headers: Headers) -> Headers:
        """The headers, mixed with any others that no reader asks for; often with none."""
        names = ["", "x" * 5_000, "a\0b", "ce_unknown", "CE_ID", "\u202e", "content-type", "ce_datacontenttype"]
        values: list[bytes | None] = [None, b"", b"\xff\xfe", b"a\0b", b"9" * 5_000, b"text/html"]
        added = [(self._dice.choice(names), self._dice.choice(values)) for _ in range(self._dice.choice([0, 0, 1, 3]))]
        if self._dice.random() < 0.2:
            headers = [header for header in headers if header[0] != "content-type"]
        place = self._dice.randint(0, len(headers))
        return [*headers[:place], *added, *headers[place:]]  # type: ignore[list-item]

    def shapeless(self, cls: type[Event], agency_id: str) -> Hostile:
        """A record of which only the value is worthless."""
        event = example(cls, agency_id=agency_id)
        headers = write_headers(envelope_of(cls, agency_id, 2, self._clock))
        return self._value(event.record_key.encode(), encode(event), headers)

    def _without(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        name = self._dice.choice(REQUIRED)
        return key, value, [header for header in headers if header[0] != name]

    def _doubled(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        name = self._dice.choice(REQUIRED)
        twice = (name, self._dice.choice([dict(headers)[name], b"2", b""]))
        headers.insert(self._dice.randint(0, len(headers)), twice)
        return key, value, headers

    def _huge(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        size = self._dice.choice([257, 5_000, 20_000])
        return key, value, self._replaced(headers, self._dice.choice(REQUIRED), b"9" * size)

    def _misformed(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        anything: list[bytes | None] = [b"", b"\xff\xfe", b"a\0b", b"\x1b[31m", None]
        wrong: dict[str, list[bytes | None]] = {
            "ce_specversion": [b"0.3", b"1", b"1.0 "],
            "ce_type": [b"muster.", b"muster.a.B.v0", b"muster.entitlements.SeatAssigned.v" + b"9" * 200],
            "ce_time": [b"yesterday", b"2025-08-06T00:00:00", b"0001-01-01T00:00:00+14:00", b"2025-13-01T00:00:00Z"],
            "ce_epoch": [b"0", b"-1", b"1.5", b"2147483648", b"9" * 20, b"0x1", b"\xd9\xa3"],
            "ce_sequence": [b"0", b"-1", b"1_0", b"9223372036854775808", b"1" + b"0" * 20, b" 2", b"1e3"],
        }
        name = self._dice.choice(REQUIRED)
        return key, value, self._replaced(headers, name, self._dice.choice(anything + wrong.get(name, [])))

    def _optional(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        """An optional header must be valid if it is there."""
        name = self._dice.choice(OPTIONAL)
        if self._dice.random() < 0.3:
            return key, value, [*headers, (name, b"evt_1"), (name, b"evt_2")]
        wrong = self._dice.choice([b"", b"\xff\xfe", b"a\0b", b"\x1b[31m", b"9" * 257, b"9" * 20_000])
        return key, value, self._replaced(headers, name, wrong)

    def _tombstone(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        return key, None, headers

    def _keyless(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        return None, value, headers

    def _value(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        dice = self._dice
        fields = json.loads(value or b"{}")
        shapes: list[Any] = [None, 7, 1e308, True, [], {}, "", "\0", "x" * 5_000, "nasa", [[]] * 50]
        worthless = dice.choice(
            [
                None,
                b"",
                b"null",
                b"7",
                b"[]",
                b"{",
                dice.randbytes(40),
                b"[" * DEEP,
                b'{"agency_id":' * DEEP,
                b'{"agency_id": 1' + b"0" * 5_000 + b"}",
                b'{"agency_id": "\\ud800"}',
                json.dumps(fields | {"agency_id": dice.choice(shapes)}).encode(),
                json.dumps(fields | {"agency_id": "GOOD-1"}).encode(),
            ]
        )
        return key, worthless, headers

    def _key(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        """On a compacted topic the key is not the agency: a header names the agency."""
        junk = self._dice.choice([b"no agency", b"\xff", b"A,B", b"A\0B", b"X" * 5_000, b"*", b"?"])
        return junk, value, self._replaced(headers, "ce_partitionkey", junk)

    def _major(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        newer = dict(headers)["ce_type"].rpartition(b".")[0] + b".v%d" % self._dice.choice([2, 9, 999_999])
        return key, value, self._replaced(headers, "ce_type", newer)

    def _gap(self, key: bytes, value: bytes | None, headers: Headers) -> Hostile:
        sequence = self._dice.choice([1_000, 2**31, 2**63 - 1])
        epoch = self._dice.choice([1, 2, 2**31 - 1])
        headers = self._replaced(headers, "ce_sequence", b"%020d" % sequence)
        return key, value, self._replaced(headers, "ce_epoch", b"%d" % epoch)

    @staticmethod
    def _replaced(headers: Headers, name: str, value: bytes | None) -> Headers:
        return [*(header for header in headers if header[0] != name), (name, value)]  # type: ignore[list-item]
