"""The findings of a reconciliation."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Difference:
    """A disagreement: its kind, its agency, what was found, and what an operator can do about it.

    `subject` identifies what it concerns, if an agency can have several.
    """

    what: str
    agency_id: str
    found: str
    remedy: str
    subject: str = ""
