"""The findings of a reconciliation."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Difference:
    """A disagreement: what it is, its agency, what was found, and what an operator does about it.

    `subject` identifies the thing that it concerns, if the agency can have several.
    """

    what: str
    agency_id: str
    found: str
    remedy: str
    subject: str = ""
