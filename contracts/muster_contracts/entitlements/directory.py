"""Events of the restricted directory: the people who hold seats."""

from typing import ClassVar

from pydantic import Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import SubjectRef


@event
class PersonRecorded(Event):
    """The person behind a subject reference. Personal data: only on the restricted directory topic.

    Emitted when a person first holds a seat, and when the data changes; only the latest record counts.
    """

    event_type: ClassVar[str] = "muster.entitlements.PersonRecorded.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"

    subject_ref: SubjectRef
    email: str = Field(description="The person's e-mail address.", examples=["grace.example@nasa.example"])
    name: str | None = Field(default=None, description="The person's name.", examples=["Grace Example", None])

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class PersonErased(Erasure):
    """A person's data is erased.

    Emitted as a tombstone, which removes the person's earlier records.
    """

    event_type: ClassVar[str] = "muster.entitlements.PersonErased.v1"
    topic: ClassVar[str] = "muster.entitlements.directory"
