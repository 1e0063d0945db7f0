"""The field types that events share."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

AgencyId = Annotated[
    str,
    Field(
        pattern=r"^[A-Z][A-Z0-9-]{1,19}$",
        description="The agency, and the Kafka key of the record.",
        examples=["NASA"],
    ),
]


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _to_rfc3339(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


Instant = Annotated[
    AwareDatetime,
    AfterValidator(_to_utc),
    PlainSerializer(_to_rfc3339, return_type=str, when_used="json"),
    Field(description="An instant, UTC, RFC 3339 with a Z.", examples=["2025-08-06T00:00:00Z"]),
]


class Money(BaseModel):
    """An amount of money in the minor unit of its currency (ISO 4217)."""

    model_config = ConfigDict(frozen=True)

    amount_minor: int = Field(description="Amount in minor units: cents for USD.", examples=[100])
    currency: str = Field(
        pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code.", examples=["USD"]
    )
