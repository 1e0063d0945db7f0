"""The feature catalog as data: its features and its versions. Version 1 is packaged as features.toml."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from muster_contracts import Instant
from muster_contracts.entitlements import AccessMode, Anchor, CatalogRule, FeatureKind, QuotaPeriod, QuotaScope
from muster_entitlements.domain.days import in_range
from muster_entitlements.domain.nearest import nearest_keys
from muster_entitlements.errors import FeatureUnknown
from muster_runtime.errors import InvalidInput

WIDTH = {AccessMode.NONE: 0, AccessMode.QUOTA: 1, AccessMode.UNLIMITED: 2}  # to compare how much they allow

LONGEST_DAYS = 3660
LONGEST_KEY = 60

# The largest integer that JSON readers of every language keep exactly.
MOST_EXACT = 2**53

# The largest value of a window's quota column, an integer in Postgres.
MOST_SEAT_USES = 2**31 - 1

_KEY = r"^[a-z][a-z0-9-]*$"

# Text for people, without control characters: databases and terminals do not handle them well.
_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _written(value: object) -> object:
    """Refuse a number, which pydantic would read as seconds or milliseconds since 1970. Raises ValueError."""
    if isinstance(value, datetime | str):
        return value
    raise ValueError("must be an instant such as 2025-08-06T00:00:00Z")


_Anchored = Annotated[Instant, BeforeValidator(_written), AfterValidator(in_range)]


def _whole_or_text(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Check a value that may be a number or text, and name a single rule that it breaks. Raises ValueError."""
    try:
        return check(value)
    except ValidationError:
        if isinstance(value, str):
            raise ValueError("must be text of 1 to 200 characters without control characters") from None
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"must be a whole number from {-MOST_EXACT} to {MOST_EXACT}") from None
        raise ValueError("must be a whole number or text") from None


_Value = Annotated[
    Annotated[int, Field(strict=True, ge=-MOST_EXACT, le=MOST_EXACT)] | _Text | None, WrapValidator(_whole_or_text)
]

Days = Annotated[int, Field(strict=True, ge=1, le=LONGEST_DAYS)]


class Quota(BaseModel):
    """How often a metered feature may be used within a period."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: int = Field(strict=True, ge=0, le=MOST_EXACT, description="Maximum uses in a period.")
    per: QuotaScope = QuotaScope.SEAT
    hard: bool = Field(default=True, description="Whether uses above the limit are refused, and not only reported.")
    report_only: bool = Field(
        default=False, description="Whether a hard quota is not enforced yet, but only reports who would be refused."
    )
    period: QuotaPeriod = QuotaPeriod.MONTH
    thresholds: tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...] = Field(
        default=(50, 80, 100), max_length=20, description="The percentages of the limit at which use is reported."
    )

    @model_validator(mode="after")
    def _rules_hold(self) -> "Quota":
        if self.report_only and not self.hard:
            raise ValueError("report_only is for a hard quota: a soft one refuses nobody")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError("thresholds must be in strictly ascending order")
        return self

    @property
    def enforced(self) -> bool:
        """Whether uses above the limit are refused."""
        return self.hard and not self.report_only

    @property
    def monthly(self) -> int | None:
        """The limit, if it counts each seat's uses in a calendar month."""
        return self.limit if (self.per, self.period) == (QuotaScope.SEAT, QuotaPeriod.MONTH) else None


class Feature(BaseModel):
    """A feature and the window that each enrollment opens for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=_KEY, max_length=LONGEST_KEY)
    name: _Text
    mode: AccessMode
    trial_days: Days | None = Field(default=None, description="Default: the window lasts as long as the term.")
    mode_after: AccessMode
    monthly_quota_after: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=MOST_SEAT_USES,
        description="Uses per seat and calendar month after the window: the short form of a hard quota.",
    )
    value: _Value = Field(default=None, description="The value of a static feature, such as a context size.")
    anchor: Anchor = Anchor.AGENCY
    anchor_at: _Anchored | None = Field(
        default=None, description="When the window begins for the whole program; only with the anchor `program`."
    )
    ends_soon_days: tuple[Days, ...] = Field(
        default=(14, 7, 1), max_length=20, description="How many days before the end of a trial a notice is published."
    )
    grace_days: Days | None = Field(
        default=None, description="How many days `mode` continues after a trial, before `mode_after` applies."
    )
    quota: Quota | None = Field(default=None, description="The quota, if `mode` or `mode_after` is `quota`.")

    @model_validator(mode="after")
    def _quota_is_stated(self) -> "Feature":
        if self.quota is not None:
            if self.monthly_quota_after is not None:
                raise ValueError("monthly_quota_after is the short form of quota: set only one of them")
            if AccessMode.QUOTA not in (self.mode, self.mode_after):
                raise ValueError("quota is allowed only with mode = quota or mode_after = quota")
            if (self.quota.monthly or 0) > MOST_SEAT_USES:
                raise ValueError(f"quota.limit must be at most {MOST_SEAT_USES} with per = seat and period = month")
        elif self.mode is AccessMode.QUOTA:
            raise ValueError("quota is required with mode = quota")
        elif (self.mode_after is AccessMode.QUOTA) != (self.monthly_quota_after is not None):
            raise ValueError("quota or monthly_quota_after is required with mode_after = quota, and only then")
        return self

    @model_validator(mode="after")
    def _window_is_stated(self) -> "Feature":
        if (self.anchor is Anchor.PROGRAM) != (self.anchor_at is not None):
            raise ValueError("anchor_at is required with anchor = program, and only then")
        if self.anchor is Anchor.SEAT and self.trial_days is None:
            raise ValueError("trial_days is required with anchor = seat")
        if self.grace_days is not None and self.trial_days is None:
            raise ValueError("grace_days is allowed only with trial_days: nothing follows a full-term window")
        if len(set(self.ends_soon_days)) != len(self.ends_soon_days):
            raise ValueError("ends_soon_days must not repeat a number")
        return self

    @property
    def kind(self) -> FeatureKind:
        """What the feature gives, derived from its value or its quota."""
        if self.value is not None:
            return FeatureKind.STATIC
        return FeatureKind.METERED if self.stated_quota else FeatureKind.BOOLEAN

    @property
    def stated_quota(self) -> Quota | None:
        """The quota, whether the feature states it in full or in its short form."""
        if self.quota is None and self.monthly_quota_after is not None:
            return Quota(limit=self.monthly_quota_after)
        return self.quota

    @property
    def seat_quota_after(self) -> int | None:
        """Uses per seat and calendar month after the window; None unless such a quota applies then."""
        return self.seat_quota if self.mode_after is AccessMode.QUOTA else None

    @property
    def seat_quota(self) -> int | None:
        """Uses per seat and calendar month; None unless the feature has such a quota."""
        quota = self.stated_quota
        return quota.monthly if quota else None

    @property
    def trial(self) -> timedelta | None:
        """How long the trial lasts; None if the window lasts as long as the term."""
        return timedelta(days=self.trial_days) if self.trial_days is not None else None


def is_key(text: str) -> bool:
    """Whether a text is a well-formed feature key."""
    return len(text) <= LONGEST_KEY and re.fullmatch(_KEY, text) is not None


@dataclass(frozen=True, slots=True)
class Catalog:
    """A version of the catalog: its features by key."""

    number: int
    features: Mapping[str, Feature]

    def extends(self, key: str, mode: AccessMode, *, of_seats: bool) -> bool:
        """Whether a new term under this version extends a window that lasted as long as the previous term, in `mode`.

        Narrower access follows the window instead; so does a trial, even of each seat, unless it is already `of_seats`.
        """
        if (feature := self.features.get(key)) is None:
            return False
        if feature.trial is not None:
            return of_seats and feature.anchor is Anchor.SEAT
        return WIDTH[feature.mode] >= WIDTH[mode]

    def known(self, key: str, past: datetime | None = None) -> Feature:
        """The feature with a key. Raises FeatureUnknown with the nearest keys and, if it is given, a `past` instant."""
        feature = self.features.get(key)
        if feature is None:
            raise FeatureUnknown(key, self.nearest(key), past)
        return feature

    def nearest(self, key: str) -> list[str]:
        """Up to three keys that resemble a key, the nearest first."""
        return nearest_keys(key[:LONGEST_KEY], self.features)


class VersionState(StrEnum):
    """Whether a version can still be edited."""

    DRAFT = "draft"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the catalog. `revision` increases with each edit of a draft. Version 1 has no timestamps."""

    number: int
    state: VersionState
    rule: CatalogRule
    features: tuple[Feature, ...]
    revision: int
    created_at: datetime | None
    published_at: datetime | None

    @property
    def catalog(self) -> Catalog:
        """Its features by key."""
        return Catalog(self.number, {feature.key: feature for feature in self.features})


# More features than a catalog needs. A plan evaluates each feature for each agency.
MOST_FEATURES = 200

_FEATURES = TypeAdapter(tuple[Feature, ...])


@lru_cache(maxsize=64)
def read_features(document: str) -> tuple[Feature, ...]:
    """The features in a JSON document that `write_features` wrote."""
    return _FEATURES.validate_json(document)


def write_features(features: tuple[Feature, ...]) -> str:
    """Features as a JSON document, without the fields that have their default."""
    return _FEATURES.dump_json(features, exclude_defaults=True).decode()


def require_keys_once(features: tuple[Feature, ...]) -> None:
    """Raise InvalidInput if two features have the same key."""
    seen: set[str] = set()
    for number, feature in enumerate(features):
        if feature.key in seen:
            raise InvalidInput(f"features.{number}.key", feature.key, "must be unique")
        seen.add(feature.key)


@cache
def packaged_version() -> Version:
    """Version 1: the features that come with the package."""
    tables = tomllib.loads(files(__package__).joinpath("features.toml").read_text("utf-8"))
    features = tuple(Feature(key=key, **table) for key, table in tables.items())
    return Version(1, VersionState.PUBLISHED, CatalogRule.NOW, features, 0, None, None)


@cache
def packaged_catalog() -> Catalog:
    """The features of version 1."""
    return packaged_version().catalog
