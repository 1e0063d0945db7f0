"""Field types that events share."""

import re
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

_AGENCY_ID = r"^[A-Z][A-Z0-9-]{1,19}$"

AgencyId = Annotated[
    str,
    Field(
        pattern=_AGENCY_ID,
        description="The agency's ID.",
        examples=["NASA", "DOD-USAF"],
    ),
]

SubjectRef = Annotated[
    str,
    Field(
        description="Pseudonymous reference to a person.",
        examples=["sub_01987b3e0000700080000000000000bb", "sub_01987b3e0000700080000000000000bc"],
    ),
]


_agency_id = re.compile(_AGENCY_ID)


def is_agency_id(text: str) -> bool:
    """Whether a text has the form of an agency's ID."""
    return _agency_id.fullmatch(text) is not None


def _to_utc(value: datetime) -> datetime:
    try:
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be an instant in the years 1 to 9999, UTC") from None


# pydantic writes a UTC datetime with a Z, so no serializer of its own slows the path of every event.
Instant = Annotated[
    AwareDatetime,
    AfterValidator(_to_utc),
    Field(
        description="An instant, UTC, RFC 3339 with a Z.",
        examples=["2025-08-06T00:00:00Z", "2026-02-28T23:59:59.999999Z"],
    ),
]

_Enum = TypeVar("_Enum")

# A closed list whose readers accept a new value: they keep it as a plain string.
Open = Annotated[_Enum | str, Field(union_mode="left_to_right")]


class Money(BaseModel):
    """An amount of money in the minor unit of its currency (ISO 4217)."""

    model_config = ConfigDict(frozen=True)

    amount_minor: int = Field(description="Amount in minor units: cents for USD.", examples=[100, 0])
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code.", examples=["USD"])


DollarAmount = Annotated[
    Money,
    Field(
        examples=[{"amount_minor": 100, "currency": "USD"}, {"amount_minor": 0, "currency": "USD"}],
    ),
]
