"""The findings of a verification."""

from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What is wrong with a part of a trail."""

    EDITED = "rows were edited"
    REMOVED = "rows were removed"
    INSERTED = "rows were inserted"
    REORDERED = "rows were reordered"
    BACKDATED = "rows are backdated"
    UNDATED = "a row has no date that can be read"
    SEAL_ALTERED = "a seal in the database was altered"
    SEALS_MISSING = "seals are missing in the database"
    SEALS_LOST = "seals were lost when the database was rolled back"
    CHAIN_BROKEN = "a seal does not continue the previous one"
    NOT_ON_TOPIC = "seals are missing on the topic"
    FORGED = "the topic has two seals at one position"
    UNREADABLE = "a record on the topic is not a seal"
    UNSEALED = "rows are not sealed"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A part of a trail that differs from its seals: the range of seal numbers and of row IDs, or None if unknown."""

    service: str
    agency_id: str
    what: What
    found: str
    seals: tuple[int, int] | None = None
    ids: tuple[int, int] | None = None


def span(ends: tuple[int, int] | None) -> str:
    """A range as text, such as `3` or `3 to 7`."""
    if ends is None:
        return ""
    first, last = ends
    return str(first) if first == last else f"{first} to {last}"
