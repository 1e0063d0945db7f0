"""The topics, as data: one TOML file per topic in `topics/`, read once on first use. Each event names its topic."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from muster_contracts.event import event_types

# The services that own and read topics.
SERVICES = ("enrollment", "entitlements", "billing", "notify")

# How many copies a topic has, where there are as many brokers.
REPLICAS = 3

# The setting of Kafka's that says how many of them must have an event before it is acknowledged.
MIN_IN_SYNC = "min.insync.replicas"


class Topic(BaseModel):
    """A Kafka topic: who owns it, how it is laid out and who may read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^muster\.[a-z]+\.[a-z]+$")
    owner: str
    producers: Literal["owner", "others"] = Field(
        default="owner", description="Who writes to it: its owner, or systems outside Muster, which the owner hears."
    )
    description: str
    events: tuple[str, ...] = Field(description="The event types on the topic.")
    key: Literal["agency_id", "subject_ref", "scope_ref", "catalog_id", "none"] = Field(
        description="The key of a record."
    )
    partitions: int = Field(ge=1)
    cleanup_policy: Literal["delete", "compact"]
    retention_ms: int = Field(ge=-1, description="-1 keeps records forever.")
    delete_retention_ms: int | None = Field(
        default=None,
        ge=1,
        description="How long a compacted topic keeps a tombstone; a reader that is away longer misses it.",
    )
    access: Literal["public", "restricted"] = Field(
        description="A restricted topic carries personal data, or is for auditors alone."
    )
    readers: tuple[str, ...] = Field(description="The Muster services that read it; others may read a public topic.")

    @property
    def compacted(self) -> bool:
        """Whether only the latest record of a key is kept, so that sequences have holes."""
        return self.cleanup_policy == "compact"

    @property
    def settings(self) -> dict[str, str]:
        """What must be set on the topic in Kafka, so that it keeps what it should: never less for its size.

        A broker that was not in step must not lead: it lacks events that were acknowledged.
        """
        kept = {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "unclean.leader.election.enable": "false",
        }
        if self.delete_retention_ms is not None:
            kept["delete.retention.ms"] = str(self.delete_retention_ms)
        return kept

    @model_validator(mode="after")
    def _tombstones_are_of_compacted_topics(self) -> Self:
        if self.compacted != (self.delete_retention_ms is not None):
            raise ValueError(f"{self.name}: delete_retention_ms is required for compacted topics, and only for them")
        return self


@cache
def topics() -> dict[str, Topic]:
    """Every topic by its name."""
    loaded = [
        _load(file.read_text("utf-8"))
        for file in sorted(files(__package__).joinpath("topics").iterdir(), key=lambda f: f.name)
        if file.name.endswith(".toml")
    ]
    return {topic.name: topic for topic in loaded}


def _load(text: str) -> Topic:
    topic = tomllib.loads(text)
    events = [name for name, event_class in event_types().items() if event_class.topic == topic["name"]]
    return Topic.model_validate(topic | {"events": events})


def min_in_sync(replicas: int) -> int:
    """With three copies an acknowledged event is on two brokers, and any one may be lost; with fewer, one must do."""
    return 2 if replicas >= REPLICAS else 1
