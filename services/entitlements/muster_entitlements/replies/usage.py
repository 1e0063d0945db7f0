"""The replies of the usage routes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_entitlements.domain.quotas import QuotaGrant

SHOWN_BYTES = 2_000


def _shown(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    text = raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return text if len(raw) <= SHOWN_BYTES else f"{text}... [cut]"


class ConsumptionReply(BaseModel):
    """Uses that were counted. Without a quota there is no limit."""

    subject_ref: str
    feature: str
    amount: int
    used: int = Field(
        description="Uses in the period so far: the person's, or the agency's if the quota is per agency."
    )
    limit: int | None = None
    remaining: int | None = Field(
        default=None, description="Uses left in the quota and in quota grants, as in a check."
    )
    resets_at: Instant = Field(description="When the period ends.")
    would_refuse: bool = Field(
        default=False, description="Whether the quota, which is not enforced yet, would have refused this."
    )


class RefusedUseReply(BaseModel):
    """An event of a batch that was not counted, and why."""

    index: int = Field(description="Its index in the batch, starting at 0.")
    id: str | None
    field: str
    value: str
    rule: str


class UsageReply(BaseModel):
    """The result of a batch of reported uses."""

    counted: int
    repeated: int = Field(description="Events that had already been counted.")
    refused: list[RefusedUseReply]


class ParkedUsageReply(BaseModel):
    """A record that could not be counted, and why. Bytes that are not UTF-8 are escaped; long values are cut."""

    id: int
    partition: int
    offset: int
    parked_at: Instant
    reason: str
    key: str | None
    headers: dict[str, str]
    value: str | None

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "ParkedUsageReply":
        """The reply for a record's columns."""
        own = dict(columns)
        headers = zip(own.pop("header_names"), own.pop("header_values"), strict=True)
        return cls.model_validate(
            own
            | {"headers": {name: _shown(value) or "" for name, value in headers}}
            | {"key": _shown(own["key"]), "value": _shown(own["value"])}
        )


class DiscardedUsageReply(BaseModel):
    """How many of the records existed and were discarded."""

    discarded: int


class QuotaGrantReply(BaseModel):
    """Uses beyond a quota, within [starts_at, ends_at)."""

    grant_id: str
    feature: str
    subject_ref: str | None = Field(description="null: all people of the agency.")
    amount: int
    spent: int
    priority: int = Field(description="The lowest is spent first; if equal, the grant that ends first.")
    starts_at: Instant
    ends_at: Instant | None

    @classmethod
    def of(cls, grant: QuotaGrant) -> "QuotaGrantReply":
        """The reply for a grant."""
        facts = asdict(grant)
        del facts["agency_id"]
        return cls(**facts | {"subject_ref": grant.subject_ref or None})


class UsageSumReply(BaseModel):
    """A person's use of a feature in a period [starts_at, ends_at)."""

    feature: str
    subject_ref: str | None = Field(description="null: all people of the agency.")
    starts_at: Instant
    ends_at: Instant
    used: int
    granted: int = Field(description="How much of `used` is covered by grants or a seat's trial, and not by the quota.")
    excess: int = Field(description="How much of `used` is covered by neither the quota nor a grant.")
