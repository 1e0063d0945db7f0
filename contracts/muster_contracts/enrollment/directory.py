"""An agency's contacts: personal data, on the restricted directory topic alone."""

from typing import ClassVar

from pydantic import Field

from muster_contracts.event import Erasure, Event, event
from muster_contracts.types import SubjectRef


@event
class ContactRecorded(Event):
    """A contact of an agency. Personal data: only on the restricted directory topic.

    Emitted when a contact is recorded or changed; only the latest record counts.
    """

    event_type: ClassVar[str] = "muster.enrollment.ContactRecorded.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"

    subject_ref: SubjectRef = Field(examples=["con_01987b3e0000700080000000000000ad"])
    role: str = Field(description="The contact's role.", examples=["administrator"])
    name: str = Field(description="The contact's name.", examples=["Ada Example", "Zoë D’Épreuve"])
    email: str = Field(description="The contact's e-mail address.", examples=["ada.example@nasa.example"])

    @property
    def record_key(self) -> str:
        return self.subject_ref


@event
class ContactErased(Erasure):
    """A contact's personal data is erased.

    Emitted as a tombstone, which removes the contact's earlier records: when the contact is replaced, one day after
    the agency leaves the program, and 90 days after a signature that no enrollment followed.
    """

    event_type: ClassVar[str] = "muster.enrollment.ContactErased.v1"
    topic: ClassVar[str] = "muster.enrollment.directory"
