"""The hash of a seal covers exactly the bytes that docs/audit.md describes, and every column."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from muster_contracts.audit import COLUMNS, NO_SEAL, canonical, sealed_sha256

SEALED_AT = datetime(2025, 8, 6, 14, 31, tzinfo=UTC)
ROW: dict[str, Any] = {
    "id": 4711,
    "recorded_at": datetime(2025, 8, 6, 10, 30, 0, 5, tzinfo=timezone(timedelta(hours=-4))),
    "agency_id": "NASA",
    "actor": 'Zoë "Z"\n\x7f\u2028',
    "command": "RecordPayment",
    "subject": None,
    "reason": "",
    "before": None,
    "after": '{"price": 1.00}',
    "request_id": "r/1",
    "correlation_id": "cor_1",
}
SEAL: dict[str, Any] = {
    "service": "billing",
    "agency_id": "NASA",
    "number": 12,
    "previous_sha256": NO_SEAL,
    "sealed_at": SEALED_AT,
}
BYTES = (
    f'{{"agency_id":"NASA","number":12,"previous_sha256":"{NO_SEAL}",'
    '"sealed_at":"2025-08-06T14:31:00.000000Z","service":"billing"}\n'
    '{"actor":"Zoë \\"Z\\"\\n\x7f\u2028","after":"{\\"price\\": 1.00}","agency_id":"NASA","before":null,'
    '"command":"RecordPayment","correlation_id":"cor_1","id":4711,"reason":"",'
    '"recorded_at":"2025-08-06T14:30:00.000005Z","request_id":"r/1","subject":null}\n'
).encode()


def test_a_seal_is_the_hash_of_the_described_bytes() -> None:
    assert sealed_sha256([ROW], **SEAL) == hashlib.sha256(BYTES).hexdigest()
    assert set(ROW) == set(COLUMNS)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_counts(name: str) -> None:
    value = ROW[name]
    changed = (
        value + (1 if isinstance(value, int) else timedelta(microseconds=1)) if name in {"id", "recorded_at"} else ""
    )
    other = {**ROW, name: changed if changed != value else None}
    assert canonical(other) != canonical(ROW)
    assert sealed_sha256([other], **SEAL) != sealed_sha256([ROW], **SEAL)


@pytest.mark.parametrize(
    "other",
    [
        {"service": "notify"},
        {"agency_id": "DOE"},
        {"number": 13},
        {"previous_sha256": "1" * 64},
        {"sealed_at": SEALED_AT + timedelta(microseconds=1)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_field_of_a_seal_counts(other: dict[str, Any]) -> None:
    assert sealed_sha256([ROW], **(SEAL | other)) != sealed_sha256([ROW], **SEAL)


def test_the_order_of_the_rows_counts() -> None:
    rows = [ROW, {**ROW, "id": 4712}]
    assert sealed_sha256(rows, **SEAL) != sealed_sha256(rows[::-1], **SEAL)
