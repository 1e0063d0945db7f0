"""The feature catalog, as data: features.toml, read once on first use."""

import tomllib
from datetime import timedelta
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, model_validator

from muster_contracts.entitlements import AccessMode
from muster_entitlements.errors import FeatureUnknown


class Feature(BaseModel):
    """A feature and the window that each enrollment opens for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    name: str
    mode: AccessMode
    trial_days: int | None = Field(default=None, ge=1, description="Default: the window lasts as long as the term.")
    mode_after: AccessMode
    monthly_quota_after: int | None = Field(default=None, ge=0, description="Uses per seat and month.")

    @model_validator(mode="after")
    def _quota_is_stated(self) -> "Feature":
        if (self.mode_after is AccessMode.QUOTA) != (self.monthly_quota_after is not None):
            raise ValueError("monthly_quota_after is required with mode_after = quota, and only then")
        return self

    @property
    def trial(self) -> timedelta | None:
        """How long the trial lasts; None when the window lasts as long as the term."""
        return timedelta(days=self.trial_days) if self.trial_days is not None else None


@cache
def features() -> dict[str, Feature]:
    """Every feature of the catalog by its key."""
    tables = tomllib.loads(files(__package__).joinpath("features.toml").read_text("utf-8"))
    return {key: Feature(key=key, **table) for key, table in tables.items()}


def known_feature(key: str) -> str:
    """The key, if the catalog has such a feature. Raises FeatureUnknown."""
    if key not in features():
        raise FeatureUnknown(key)
    return key
