"""The rules as data: who is notified of which event. Read once from rules.toml."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from muster_contracts import Event, event_types, topics
from muster_notify.domain.contacts import PERSON


class Rule(BaseModel):
    """Sends an e-mail about an event of a type to a role, if fields of its data have the values in `when`.

    `until` names an instant in the data from which on an e-mail would be too late: none is recorded about an event that
    happened then, and none is sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z-]*$")
    event: str
    recipient: Literal["administrator", "operators", "person"]
    message: str
    when: dict[str, int | str] = Field(default_factory=dict)
    until: str | None = None

    def applies_to(self, event: Event, at: datetime) -> bool:
        """Whether the rule sends an e-mail about an event of its type that happened at an instant."""
        if self.until is not None and at >= getattr(event, self.until):
            return False
        return all(getattr(event, name) == value for name, value in self.when.items())

    def is_over(self, data: Mapping[str, Any], now: datetime) -> bool:
        """Whether an e-mail about an event with this data, as in JSON, would be too late."""
        return self.until is not None and now >= datetime.fromisoformat(data[self.until])


class Rules(BaseModel):
    """All rules; validation checks that the names in them exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: tuple[Rule, ...]

    @model_validator(mode="after")
    def _is_sound(self) -> "Rules":
        unknown = {rule.event for rule in self.email} - set(public_types())
        if unknown:
            raise ValueError(f"not types of public events: {sorted(unknown)}")
        for rule in self.email:
            needed = {*rule.when, *([rule.until] if rule.until else [])}
            needed |= {"subject_ref"} if rule.recipient == PERSON else set()
            if missing := needed - event_types()[rule.event].model_fields.keys():
                raise ValueError(f"{rule.event} has no {sorted(missing)}, which the rule {rule.name} needs")
        if len({rule.name for rule in self.email}) < len(self.email):
            raise ValueError("two rules have the same name")
        return self

    def for_event(self, event_type: str) -> list[Rule]:
        """The e-mail rules of an event type."""
        return [rule for rule in self.email if rule.event == event_type]

    def named(self, name: str) -> Rule:
        """The rule with that name; raises KeyError if there is none."""
        return {rule.name: rule for rule in self.email}[name]


def public_types() -> list[str]:
    """The types of the public events that notify reads."""
    read = [topic for topic in topics().values() if topic.access == "public" and "notify" in topic.readers]
    return [name for name in event_types() if any(name in topic.events for topic in read)]


@cache
def types_on_request() -> frozenset[str]:
    """The types of events about a single seat. They are so frequent that a webhook receives only those it names."""
    return frozenset(name for name in public_types() if "seat_id" in event_types()[name].model_fields)


@cache
def rules() -> Rules:
    """The package's rules."""
    return Rules.model_validate(tomllib.loads(files(__package__).joinpath("rules.toml").read_text("utf-8")))


def wanted_types(named: Sequence[str] | None) -> frozenset[str]:
    """The types that an endpoint receives: those it names, or else all public ones except those on request."""
    return frozenset(public_types()).difference(types_on_request()) if named is None else frozenset(named)
