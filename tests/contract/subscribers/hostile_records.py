"""Records that no reader may accept as a fact, and records that only some readers refuse."""

import json
from dataclasses import replace
from typing import Any

from muster_contracts import Event, encode
from muster_contracts.entitlements import SeatAssigned, SeatBatchCompleted, SeatReserved, SeatRevoked
from muster_contracts.testing import Record, build, record

GOOD = record(build(SeatAssigned, agency_id="NASA"), sequence=1, causation_id="c", traceparent="t")
DATA = json.loads(GOOD.value or b"")


def with_headers(**changes: bytes | None) -> Record:
    """A good record with some headers changed, added, or omitted."""
    headers = {**dict(GOOD.headers), **changes}
    return replace(GOOD, headers=[(name, value) for name, value in headers.items() if value is not None])


def doubled(name: str, value: bytes) -> Record:
    """A good record with a header repeated."""
    return replace(GOOD, headers=[*GOOD.headers, (name, value)])


def with_value(event: type[Event] = SeatAssigned, /, **changes: Any) -> Record:
    """A good record with some fields of its value changed or added; a field of `...` is omitted."""
    fields = {**json.loads(encode(build(event, agency_id="NASA")) or b""), **changes}
    value = json.dumps({name: field for name, field in fields.items() if field is not ...}).encode()
    return replace(with_headers(ce_type=event.event_type.encode()), value=value)


def with_text(text: str) -> Record:
    """A good record whose value has this JSON in an unknown field."""
    return replace(GOOD, value=(GOOD.value or b"")[:-1] + b', "added": ' + text.encode() + b"}")


ENDLESS = (with_value(SeatBatchCompleted, rows="@").value or b"").replace(b'"@"', b"1e400")

CE_HEADERS = [name for name, _ in GOOD.headers if name.startswith("ce_")]
CE_TEXTS = [name for name in CE_HEADERS if name not in {"ce_specversion", "ce_time", "ce_epoch", "ce_sequence"}]

OTHER_KINDS: tuple[Any, ...] = (None, 7, [], {}, True)

# Characters that are not printable according to str.isprintable: Unicode's categories C and Z.
UNPRINTABLE = {
    "line break": "\n",
    "no-break space": "\u00a0",
    "line separator": "\u2028",
    "ideographic space": "\u3000",
    "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff",
    "private": "\ue000",
    "unassigned": "\U000e0fff",
}

NO_INSTANTS = {
    "none": "yesterday",
    "without a zone": "2025-08-06T00:00:00",
    "30 February": "2025-02-30T00:00:00Z",
    "29 February of another year": "2025-02-29T00:00:00Z",
    "hour 24": "2025-08-06T24:00:00Z",
    "minute 60": "2025-08-06T00:60:00Z",
    "second 60": "2025-08-06T23:59:60Z",
    "month 13": "2025-13-06T00:00:00Z",
    "day 0": "2025-08-00T00:00:00Z",
    "year 0": "0000-01-01T00:00:00Z",
    "before year 1": "0001-01-01T00:00:00+01:00",
    "after year 9999": "9999-12-31T23:59:59-01:00",
    "an offset of 24 hours": "2025-08-06T00:00:00+24:00",
    "an offset of 75 minutes": "2025-08-06T00:00:00+00:75",
    "a day alone": "2025-08-06",
    "Arabic digits": "\u0662\u0660\u0662\u0665-08-06T00:00:00Z",
    "a space around": " 2025-08-06T00:00:00Z",
    "empty": "",
}
# Python reads these in a value, but not in a header.
OTHER_FORMS = {
    "no seconds": "2025-08-06T00:00Z",
    "lower case": "2025-08-06t00:00:00z",
    "a space between": "2025-08-06 00:00:00Z",
}
OTHER_ISO = {
    "basic form": "20250806T000000Z",
    "a week's day": "2025-W32-3T00:00:00Z",
    "a comma": "2025-08-06T00:00:00,5Z",
}
INSTANTS = {
    "leap day": "2024-02-29T00:00:00Z",
    "offset": "2025-08-06T02:00:00+02:00",
    "no offset, negative": "2025-08-06T00:00:00-00:00",
    "one digit of a second": "2025-08-06T00:00:00.5Z",
    "nine digits of a second": "2025-08-06T00:00:00.123456789Z",
    "the first": "0001-01-01T00:00:00Z",
    "the last": "9999-12-31T23:59:59.999999Z",
    "year 99": "0099-02-28T00:00:00Z",
}


def hostile() -> list[tuple[str, Record]]:
    """Records with one fault each, and some without a fault."""
    reserved = "reserved_until"
    times = [*NO_INSTANTS.items(), *OTHER_FORMS.items(), *OTHER_ISO.items(), *INSTANTS.items()]
    values: dict[str, bytes | None] = {
        "none": None,
        "empty": b"",
        "JSON's null": b"null",
        "no JSON": b"{",
        "no UTF-8": b"\xff\xfe",
        "UTF-16": '{"agency_id": "NASA"}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + (GOOD.value or b""),
        "a list": b"[]",
        "a number": b"7",
        "a text": b'"text"',
        "JSON within a text": json.dumps((GOOD.value or b"").decode()).encode(),
        "more behind it": (GOOD.value or b"") + b"{}",
        "a field twice, the last one good": b'{"agency_id": 7, ' + (GOOD.value or b"")[1:],
        "a field twice, the last one bad": (GOOD.value or b"")[:-1] + b', "agency_id": 7}',
    }
    added = {
        "anything": '{"deep": [1, null, true, "x", 1.5]}',
        "half a character": '"\\ud800"',
        "the other half": '"\\udc00"',
        "a whole character in halves": '"\\ud83d\\ude00"',
        "half a character in a name": '{"\\ud800": 1}',
        "__proto__": '{"__proto__": {"agency_id": "NIH"}}',
        "a depth of 200 in all": '{"a":' * 199 + "1" + "}" * 199,
        "a depth of 201 in all": '{"a":' * 200 + "1" + "}" * 200,
        "a depth of 10,000": "[" * 10_000 + "]" * 10_000,
        "a control character": '"\x01"',
        "a number with a zero before": "01",
    }
    return [
        ("a fact", GOOD),
        *(
            (f"{event.__name__}, golden", with_value(event))
            for event in (SeatReserved, SeatRevoked, SeatBatchCompleted)
        ),
        ("a type that is not known", with_headers(ce_type=b"muster.entitlements.SeatPainted.v1")),
        ("another's type", with_headers(ce_type=b"com.example.thing")),
        ("a newer major", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v2")),
        ("a malformed type", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v")),
        ("version 0", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v0")),
        ("a version of many digits", with_headers(ce_type=b"muster.entitlements.SeatAssigned.v" + b"9" * 5000)),
        *((f"no {name}", with_headers(**{name: None})) for name in CE_HEADERS),
        *((f"an empty {name}", with_headers(**{name: b""})) for name in CE_HEADERS),
        *((f"{name} is no UTF-8", with_headers(**{name: b"\xff"})) for name in CE_HEADERS),
        *((f"{name} is given twice", doubled(name, value)) for name, value in GOOD.headers),
        *((f"{name} of 257 bytes", with_headers(**{name: b"x" * 257})) for name in CE_HEADERS),
        *(
            (f"{name} of 256 bytes", with_headers(**{name: b"x" * 256}))
            for name in CE_TEXTS
            if name != "ce_partitionkey"
        ),
        *(
            (f"{name} holds a {what}", with_headers(**{name: f"a{text}b".encode()}))
            for name in CE_TEXTS
            for what, text in UNPRINTABLE.items()
        ),
        ("a space, and letters of all kinds", with_headers(ce_correlationid="anfrage süd 1 要求 😀".encode())),
        ("no content-type", with_headers(**{"content-type": None})),
        ("another content-type", with_headers(**{"content-type": b"application/cloudevents+json"})),
        ("another's header, twice", replace(GOOD, headers=[*GOOD.headers, ("x", b"1"), ("x", b"\xff")])),
        ("another's attribute", with_headers(**{"ce_Other-One": b"\xff"})),
        ("another specversion", with_headers(ce_specversion=b"0.3")),
        ("a huge sequence", with_headers(ce_sequence=b"9" * 20)),
        ("the last sequence", with_headers(ce_sequence=b"%d" % (2**63 - 1))),
        ("a huge epoch", with_headers(ce_epoch=b"9" * 11)),
        ("a negative sequence", with_headers(ce_sequence=b"-1")),
        ("a sequence with a sign", with_headers(ce_sequence=b"+1")),
        ("a sequence with a line break", with_headers(ce_sequence=b"1\n")),
        ("sequence 0", with_headers(ce_sequence=b"0")),
        *((f"ce_time: {what}", with_headers(ce_time=text.encode())) for what, text in times),
        ("ce_time of 41 bytes", with_headers(ce_time=b"2025-08-06T00:00:00.%sZ" % (b"0" * 20))),
        ("another agency's data", with_headers(ce_partitionkey=b"NIH")),
        *((f"a value: {what}", replace(GOOD, value=value)) for what, value in values.items()),
        *((f"a field that is not known: {what}", with_text(text)) for what, text in added.items()),
        *((f"no {name}", with_value(**{name: ...})) for name in DATA),
        *((f"{name} is {bad!r}", with_value(**{name: bad})) for name in DATA for bad in OTHER_KINDS),
        ("an agency in lower case", with_value(agency_id="nasa")),
        ("an agency with a line break", with_value(agency_id="NASA\n")),
        *((f"{reserved}: {what}", with_value(SeatReserved, **{reserved: text})) for what, text in NO_INSTANTS.items()),
        *((f"{reserved}: {what}", with_value(SeatReserved, **{reserved: text})) for what, text in INSTANTS.items()),
        *((f"a number is {bad!r}", with_value(SeatBatchCompleted, rows=bad)) for bad in (-1, 0, 1.0, 1.5, 2**31, "x")),
        ("an endless number", replace(with_value(SeatBatchCompleted, rows="@"), value=ENDLESS)),
        (f"{reserved} is null", with_value(SeatReserved, **{reserved: None})),
    ]


# What Python reads and JavaScript refuses: values in a form other than the schema's, which Muster never writes.
STRICTER = [
    *((f"an instant with {what}", with_value(SeatReserved, reserved_until=text)) for what, text in OTHER_FORMS.items()),
    ("an instant as a number", with_value(SeatReserved, reserved_until=1_754_438_400)),
    ("a number as text", with_value(SeatBatchCompleted, rows="5")),
    ("a truth value for a number", with_value(SeatBatchCompleted, rows=True)),
    ("a number that is no JSON", with_text("NaN")),
    ("a number that JavaScript rounds", with_text(str(2**53 + 1))),
]
