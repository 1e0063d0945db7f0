"""What a reconciliation finds."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Difference:
    """A disagreement: what it is, its agency, what was found, and what an operator does about it.

    `subject` says which of the agency's things it concerns, if there can be several.
    """

    what: str
    agency_id: str
    found: str
    remedy: str
    subject: str = ""
