"""The topics, as data: one TOML file a topic in `topics/`, read once on first use."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Topic(BaseModel):
    """A Kafka topic: who owns it, how it is laid out and who may read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^muster\.[a-z]+\.[a-z]+$")
    owner: str
    description: str
    events: tuple[str, ...] = Field(description="The wire types that it carries.")
    key: Literal["agency_id", "subject_ref", "scope_ref", "none"] = Field(description="What keys a record.")
    partitions: int = Field(ge=1)
    cleanup_policy: Literal["delete", "compact"]
    retention_ms: int = Field(ge=-1, description="-1 keeps records without limit.")
    access: Literal["public", "restricted"] = Field(description="Restricted topics carry personal data.")
    readers: tuple[str, ...] = Field(description="The services that read it; others may where it is public.")

    @property
    def compacted(self) -> bool:
        """Whether only the latest record of a key is kept, so that sequences have holes."""
        return self.cleanup_policy == "compact"

    @property
    def settings(self) -> dict[str, str]:
        """What must be set on the topic in Kafka, so that it keeps what it should."""
        return {"cleanup.policy": self.cleanup_policy, "retention.ms": str(self.retention_ms)}


@cache
def topics() -> dict[str, Topic]:
    """Every topic by its name."""
    loaded = [
        Topic.model_validate(tomllib.loads(file.read_text("utf-8")))
        for file in sorted(files(__package__).joinpath("topics").iterdir(), key=lambda f: f.name)
        if file.name.endswith(".toml")
    ]
    return {topic.name: topic for topic in loaded}
