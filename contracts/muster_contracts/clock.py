"""The sandbox's clock event: not of an agency, and never on a production cluster."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from muster_contracts.types import Instant


class ClockMoved(BaseModel):
    """The sandbox's clock was set to an instant, where it stays until it moves again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: ClassVar[str] = "muster.sandbox.ClockMoved.v1"
    topic: ClassVar[str] = "muster.sandbox.clock"

    now: Instant = Field(description="The sandbox's time, UTC.", examples=["2025-08-06T00:00:00Z"])
