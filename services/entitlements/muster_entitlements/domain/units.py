"""Units: the part of an agency that a seat is for. A unit is public, and not personal data."""

from muster_runtime.errors import InvalidInput
from muster_runtime.text import composed, names_address

LONGEST_UNIT = 80


def normalize_unit(value: str | None) -> str | None:
    """A unit in Unicode NFC with single spaces; None if it is empty. Raises InvalidInput, also for an address."""
    unit = composed(" ".join((value or "").split()))
    if len(unit) > LONGEST_UNIT or not unit.isprintable() or names_address(unit):
        rule = f"must be at most {LONGEST_UNIT} characters without control characters and without @: it is published"
        raise InvalidInput("unit", value, rule)
    return unit or None


def unit_key(unit: str) -> str:
    """A key that is equal for units that differ only in case."""
    return composed(unit.casefold())
