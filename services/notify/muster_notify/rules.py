"""The rules as data: what is told to whom, read once from rules.toml."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from muster_contracts import event_types, topics


class Rule(BaseModel):
    """An event of a type is told to a role by an e-mail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z-]*$")
    event: str
    recipient: Literal["administrator", "operators"]
    message: str


class Rules(BaseModel):
    """All rules; the names that they use exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_request: frozenset[str] = Field(description="Types that a webhook gets only when its endpoint names them.")
    email: tuple[Rule, ...]

    @model_validator(mode="after")
    def _is_sound(self) -> "Rules":
        unknown = ({rule.event for rule in self.email} | self.on_request) - set(public_types())
        if unknown:
            raise ValueError(f"not types of public events: {sorted(unknown)}")
        if len({rule.name for rule in self.email}) < len(self.email):
            raise ValueError("two rules have the same name")
        return self

    def for_event(self, event_type: str) -> list[Rule]:
        """The e-mail rules of an event type."""
        return [rule for rule in self.email if rule.event == event_type]

    def named(self, name: str) -> Rule:
        """The rule of that name; raises KeyError."""
        return {rule.name: rule for rule in self.email}[name]


def public_types() -> list[str]:
    """The types of the public events that notify reads."""
    read = [topic for topic in topics().values() if topic.access == "public" and "notify" in topic.readers]
    return [name for name in event_types() if any(name in topic.events for topic in read)]


@cache
def rules() -> Rules:
    """The rules of the package."""
    return Rules.model_validate(tomllib.loads(files(__package__).joinpath("rules.toml").read_text("utf-8")))


def wanted_types(named: Sequence[str] | None) -> frozenset[str]:
    """The types that an endpoint gets: those that it names; without names all public ones but those on request."""
    return frozenset(public_types()).difference(rules().on_request) if named is None else frozenset(named)
