"""What a verification finds."""

from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What is wrong with a part of a trail."""

    EDITED = "rows were edited"
    REMOVED = "rows were removed"
    INSERTED = "rows were inserted"
    REORDERED = "rows were reordered"
    SEAL_ALTERED = "a seal of the database was altered"
    SEALS_MISSING = "seals are missing in the database"
    SEALS_LOST = "seals were lost when the database went back"
    CHAIN_BROKEN = "a seal does not continue the one before"
    NOT_ON_TOPIC = "seals are missing on the topic"
    FORGED = "the topic has two seals at one position"
    UNREADABLE = "a record of the topic is no seal"
    UNSEALED = "rows are not sealed"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A part of a trail that is not as it was sealed: the numbers of its seals and the ids of its rows.

    What is not known of it is None.
    """

    service: str
    agency_id: str
    what: What
    found: str
    seals: tuple[int, int] | None = None
    ids: tuple[int, int] | None = None


def span(ends: tuple[int, int] | None) -> str:
    """A range as text."""
    if ends is None:
        return ""
    first, last = ends
    return str(first) if first == last else f"{first} to {last}"
