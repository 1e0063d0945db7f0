"""The published versions of the feature catalog."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.entitlements.features import AccessAfter, AccessMode, Feature
from muster_contracts.event import Event, event
from muster_contracts.types import Instant, Open

CatalogNumber = Annotated[int, Field(ge=1, description="The version of the feature catalog.", examples=[2, 1])]


class FeatureKind(StrEnum):
    """What a feature gives."""

    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"


class Anchor(StrEnum):
    """What a feature's window starts with."""

    PROGRAM = "program"
    AGENCY = "agency"
    SEAT = "seat"


class QuotaScope(StrEnum):
    """Whose uses a quota counts together."""

    SEAT = "seat"
    AGENCY = "agency"


class QuotaPeriod(StrEnum):
    """When a quota resets."""

    MONTH = "month"
    ANCHOR = "anchor"


class CatalogRule(StrEnum):
    """How a version reaches agencies that are enrolled already."""

    NOW = "now"
    NEXT_TERM = "next-term"
    NEW_AGENCIES = "new-agencies"


class CatalogQuota(BaseModel):
    """How often a metered feature may be used within a period."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(ge=0, description="Uses allowed in a period.", examples=[25, 0])
    per: Open[QuotaScope] = Field(description="Whose uses count together.", examples=["seat", "team"])
    hard: bool = Field(description="Uses above the limit are refused.", examples=[True, False])
    report_only: bool = Field(
        default=False, description="A hard quota that only reports whom it would refuse.", examples=[False, True]
    )
    period: Open[QuotaPeriod] = Field(
        description="A calendar month, or a month that starts with the window.", examples=["month", "quarter"]
    )
    thresholds: list[int] = Field(
        description="The shares of the limit that are reported, in percent.", examples=[[50, 80, 100], []]
    )


class CatalogFeature(BaseModel):
    """A feature, and the window that an enrollment opens for it."""

    model_config = ConfigDict(frozen=True)

    key: Feature
    title: str = Field(description="The feature, as people call it.", examples=["Deep Research"])
    kind: Open[FeatureKind] = Field(description="What the feature gives.", examples=["metered", "pooled"])
    value: int | str | None = Field(default=None, description="What a static feature gives.", examples=[None, 128000])
    mode: Open[AccessMode] = Field(description="Access within the window.", examples=["unlimited", "read_only"])
    trial_days: int | None = Field(
        default=None, ge=1, description="Length of the window; null: as long as the term.", examples=[60, None]
    )
    anchor: Open[Anchor] = Field(description="What the window starts with.", examples=["agency", "bureau"])
    anchor_at: Instant | None = Field(
        default=None,
        description="The start, if the anchor is the program.",
        examples=[None, "2025-08-06T00:00:00Z"],
    )
    ends_soon_days: list[int] = Field(
        description="Days before the end of a trial on which a notice is sent.", examples=[[14, 7, 1], []]
    )
    grace_days: int | None = Field(
        default=None,
        ge=1,
        description="Days after a trial on which its access lasts, before `mode_after` holds.",
        examples=[None, 7],
    )
    mode_after: AccessAfter
    quota: CatalogQuota | None = Field(
        default=None,
        description="What a quota within or after the window means.",
        examples=[
            {
                "limit": 25,
                "per": "seat",
                "hard": True,
                "report_only": False,
                "period": "month",
                "thresholds": [50, 80, 100],
            },
            None,
        ],
    )


@event
class FeatureCatalogPublished(Event):
    """A version of the feature catalog was published, whole. Only the latest record counts.

    Emitted once per version from version 2 on; version 1 comes with the service.
    """

    event_type: ClassVar[str] = "muster.entitlements.FeatureCatalogPublished.v1"
    topic: ClassVar[str] = "muster.entitlements.catalog"

    agency_id: str = Field(description="`*`: the catalog is the program's.", examples=["*"])
    catalog_id: str = Field(description="The catalog, and the Kafka key of the record.", examples=["features"])
    number: CatalogNumber
    rule: Open[CatalogRule] = Field(
        description="How the version reaches agencies that are enrolled already: at once, from their next term on, "
        "or not at all. No window that has begun gets shorter.",
        examples=["now", "gradually"],
    )
    features: list[CatalogFeature] = Field(
        description="All features.",
        examples=[
            [
                {
                    "key": "deep-research",
                    "title": "Deep Research",
                    "kind": "metered",
                    "mode": "unlimited",
                    "trial_days": 60,
                    "anchor": "agency",
                    "ends_soon_days": [14, 7, 1],
                    "mode_after": "quota",
                    "quota": {
                        "limit": 25,
                        "per": "seat",
                        "hard": True,
                        "report_only": False,
                        "period": "month",
                        "thresholds": [50, 80, 100],
                    },
                }
            ],
            [],
        ],
    )
    published_at: Instant = Field(description="Time of the publication, UTC.", examples=["2026-01-15T10:00:00Z"])

    @property
    def record_key(self) -> str:
        return self.catalog_id
