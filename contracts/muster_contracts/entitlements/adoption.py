"""The event of adoption: how many people use an agency's features."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.entitlements.features import Feature
from muster_contracts.event import Event, event


class FeatureAdoption(BaseModel):
    """How many people use a feature. A number of fewer than ten people, but not none, is null."""

    model_config = ConfigDict(frozen=True)

    feature: Feature
    active: int | None = Field(ge=0, description="People who used it on the day.", examples=[412, None])
    active_7_days: int | None = Field(
        ge=0, description="People who used it within seven days, up to the day.", examples=[1210, None]
    )
    active_28_days: int | None = Field(
        ge=0, description="People who used it within 28 days, up to the day.", examples=[2893, 0]
    )
    first_uses: int | None = Field(
        ge=0, description="People who used it on the day for the first time with their seat.", examples=[31, None]
    )
    never_used: int | None = Field(
        ge=0,
        description="Seats whose people have not used it; null also if those who have are fewer than ten.",
        examples=[15080, None],
    )


@event
class AdoptionSummarized(Event):
    """How many people of an agency use its features, at the end of a day there. Late use of the day is not in it.

    Emitted at most once per agency and day, as long as any feature was used within 28 days.
    """

    event_type: ClassVar[str] = "muster.entitlements.AdoptionSummarized.v1"
    topic: ClassVar[str] = "muster.entitlements.feature"

    day: str = Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        description="The day, in the agency's time zone.",
        examples=["2025-11-03", "2026-02-28"],
    )
    seats: int = Field(ge=0, description="Seats that people hold.", examples=[17973, 4])
    features: list[FeatureAdoption] = Field(
        description="Adoption by feature.",
        examples=[
            [
                {
                    "feature": "deep-research",
                    "active": 412,
                    "active_7_days": 1210,
                    "active_28_days": 2893,
                    "first_uses": 31,
                    "never_used": 15080,
                }
            ],
            [],
        ],
    )
