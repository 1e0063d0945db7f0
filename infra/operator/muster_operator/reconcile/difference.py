"""What a reconciliation finds."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Difference:
    """Two accounts that do not agree: what, of which agency, what was found, and what an operator does about it.

    `subject` is what of the agency it concerns, where it can be about several.
    """

    what: str
    agency_id: str
    found: str
    remedy: str
    subject: str = ""
