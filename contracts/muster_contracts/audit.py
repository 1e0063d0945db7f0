"""The seals of audit trails: what each service's AuditSealed has, and the hash that anyone can compute again."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from muster_contracts.event import Event
from muster_contracts.types import Instant

# What stands for the seal before a trail's first one.
NO_SEAL = "0" * 64

# The columns of an audit row, all of which a seal covers.
COLUMNS = (
    "id",
    "recorded_at",
    "agency_id",
    "actor",
    "command",
    "subject",
    "reason",
    "before",
    "after",
    "request_id",
    "correlation_id",
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SealedAudit(Event):
    """Consecutive rows of an agency's audit trail in one service, and the hash that covers them."""

    agency_id: str = Field(
        description="The agency's ID; `*` for the program itself, `?` for records without a known agency.",
        examples=["NASA", "*"],
    )
    number: int = Field(
        ge=1, description="The number of the seal in the agency's trail, from 1 without gaps.", examples=[12, 1]
    )
    first_id: int = Field(ge=1, description="The id of the first row.", examples=[4711, 1])
    last_id: int = Field(
        ge=1, description="The id of the last row; other agencies' rows may lie between.", examples=[4720, 1]
    )
    count: int = Field(ge=1, description="The number of rows.", examples=[3, 1])
    sha256: Sha256 = Field(
        description="SHA-256 of the rows and of the previous seal, in hexadecimal; docs/audit.md defines the bytes.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    previous_sha256: Sha256 = Field(
        description="`sha256` of the previous seal; 64 zeros in the first.",
        examples=["60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", NO_SEAL],
    )
    sealed_at: Instant = Field(
        description="When the rows were sealed, UTC.", examples=["2025-08-06T00:01:00Z", "2026-02-28T23:59:59.999999Z"]
    )


def sealed_sha256(
    rows: Iterable[Mapping[str, object]],
    *,
    service: str,
    agency_id: str,
    number: int,
    previous_sha256: str,
    sealed_at: datetime,
) -> str:
    """The hash of a seal.

    It is the SHA-256 of lines that each end with a line feed: first what the seal itself says, then each row of
    `rows` by ascending id with all of COLUMNS. A line is a JSON object in the form of RFC 8785.
    """
    seal = {
        "agency_id": agency_id,
        "number": number,
        "previous_sha256": previous_sha256,
        "sealed_at": sealed_at,
        "service": service,
    }
    digest = hashlib.sha256(canonical(seal))
    for row in rows:
        digest.update(canonical(row))
    return digest.hexdigest()


def canonical(facts: Mapping[str, object]) -> bytes:
    """An object as a line of RFC 8785: names in order, no spaces, UTF-8; an instant as canonical_instant has it."""
    values = {name: canonical_instant(value) if isinstance(value, datetime) else value for name, value in facts.items()}
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def canonical_instant(instant: datetime) -> str:
    """An instant in UTC with six digits of its second, such as `2025-08-06T00:00:00.000000Z`."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
