"""The replies of the adoption routes. A number that reveals 1 to 9 people is null."""

import datetime

from pydantic import BaseModel, Field

from muster_entitlements.domain.adoption import Adoption


class AdoptionDayReply(BaseModel):
    """How many people used a feature on a day in the agency's time zone, and within the 7 and 28 days up to it.

    A number from 1 to 9 is null, and so is one that is 1 to 9 below the number of seats or below a larger number that
    is shown.
    """

    feature: str
    day: datetime.date
    active: int | None = Field(description="People who used it on the day.")
    active_7_days: int | None
    active_28_days: int | None
    first_uses: int | None = Field(description="People who used it for the first time with their seat.")
    days_to_first_use: float | None = Field(description="Average days from getting the seat to the first use.")

    @classmethod
    def of(cls, adoption: Adoption, seats: int) -> "AdoptionDayReply":
        """The reply for an agency with this many seats in use."""
        return cls(**facts(adoption, seats))


class FeatureAdoptionReply(AdoptionDayReply):
    """How many people use a feature today, and how many seat holders have never used it."""

    never_used: int | None = Field(
        description="Seat holders who have never used it; null also if those who have are 1 to 9, or 1 to 9 more than "
        "another number shown."
    )

    @classmethod
    def of(cls, adoption: Adoption, seats: int) -> "FeatureAdoptionReply":
        """The reply for an agency with this many seats in use."""
        return cls(**facts(adoption, seats), never_used=adoption.shown(seats).never_used)


class AdoptionReply(BaseModel):
    """How many of an agency's people use each feature today."""

    day: datetime.date = Field(description="Today, in the agency's time zone.")
    seats: int = Field(description="Seats that people hold.")
    features: list[FeatureAdoptionReply]


def facts(adoption: Adoption, seats: int) -> dict[str, object]:
    """The fields of a day's reply, in order."""
    shown = adoption.shown(seats)
    return {
        "feature": shown.feature,
        "day": shown.day,
        "active": shown.active,
        "active_7_days": shown.active_7_days,
        "active_28_days": shown.active_28_days,
        "first_uses": shown.first_uses,
        "days_to_first_use": shown.days_to_first_use,
    }
