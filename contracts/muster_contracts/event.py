"""The base of every event, and the registry from wire type to model."""

import re
from dataclasses import dataclass
from datetime import date
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from muster_contracts.envelope import MalformedRecord, shown
from muster_contracts.types import AgencyId, SubjectRef

# A major version has few digits: Python refuses to convert a number with thousands of them.
_TYPE = re.compile(r"muster\.[a-z]{1,40}\.[A-Z][A-Za-z]{1,80}\.v[1-9][0-9]{0,5}")


@dataclass(frozen=True)
class Deprecation:
    """The deprecation of an event: since when, the last day on which it is emitted, and the type that replaces it.

    Raises ValueError unless the last day is after the first.
    """

    since: date
    sunset: date
    replaced_by: str

    def __post_init__(self) -> None:
        if self.sunset <= self.since:
            raise ValueError(f"deprecation: sunset {self.sunset} must be after since {self.since}")


class Event(BaseModel):
    """A fact about one agency. Its data is the JSON value of a CloudEvents record.

    Unknown fields are ignored: within a major version a producer may add optional ones.
    The first example of each field makes the typical golden record of the event, the last one the edge case.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: ClassVar[str]
    topic: ClassVar[str]
    emitted: ClassVar[bool] = True
    """False until the owner publishes it; a subscriber can prepare for it."""

    replaced_by: ClassVar[str | None] = None
    """Set when another type has taken the place of an event that was never emitted: nobody needs to wait for it."""

    deprecation: ClassVar[Deprecation | None] = None
    """Set if the event is deprecated. Records do not show it; the catalog and the schema do."""

    agency_id: AgencyId

    @property
    def record_key(self) -> str:
        """The Kafka key of the record: the agency, except on a compacted topic."""
        return self.agency_id


class Erasure(Event):
    """A tombstone: a record without a value, after which compaction erases its key."""

    subject_ref: SubjectRef

    @property
    def record_key(self) -> str:
        return self.subject_ref


E_ = TypeVar("E_", bound=type[Event])

_registry: dict[str, type[Event]] = {}


def event(cls: E_) -> E_:
    """Register an event class under the wire type that it writes out."""
    if not _TYPE.fullmatch(cls.event_type):
        raise ValueError(f"{cls.__name__}: {cls.event_type!r} is not muster.<service>.<Name>.v<N>")
    if cls.event_type in _registry:
        raise ValueError(f"{cls.event_type} is registered twice")
    _registry[cls.event_type] = cls
    return cls


def event_types() -> dict[str, type[Event]]:
    """Every event class by its wire type."""
    return dict(_registry)


def find_event(event_type: str) -> type[Event] | None:
    """The event class of a wire type; None for an unknown type."""
    return _registry.get(event_type)


def latest_major(family: str) -> int | None:
    """The highest known major version of a family, such as `muster.billing.TermStarted`; None if none is known."""
    return max((major for name, major in map(_split, _registry) if name == family), default=None)


def split_type(event_type: str) -> tuple[str, int] | None:
    """A wire type as its family and major version; None if it is not one of Muster's.

    Raises MalformedRecord if it begins like one of Muster's types but is not one.
    """
    if _TYPE.fullmatch(event_type):
        return _split(event_type)
    if event_type.startswith("muster."):
        raise MalformedRecord(f"header ce_type is {shown(event_type)}, not muster.<service>.<Name>.v<major>")
    return None


def _split(event_type: str) -> tuple[str, int]:
    family, major = event_type.rsplit(".v", 1)
    return family, int(major)
