"""Identifiers that are prefixed, unique, and sortable by time: a prefix and a UUIDv7 (RFC 9562, 5.7)."""

import os
from datetime import datetime

# The tenant of an operator's read of all agencies, and the lock for what belongs to the program itself.
EVERY_AGENCY = "*"


def new_ids(prefix: str, now: datetime, count: int) -> list[str]:
    """Many new identifiers in ascending order, at a tenth of the cost. The first digit of their variant is always 8."""
    head = f"{prefix}_{int(now.timestamp() * 1000):012x}7"
    random = os.urandom(9 * count).hex()
    return sorted(f"{head}{random[at : at + 3]}8{random[at + 3 : at + 18]}" for at in range(0, 18 * count, 18))


def new_id(prefix: str, now: datetime) -> str:
    """A new identifier, such as `inv_01987b3e…`, for something created at `now`."""
    milliseconds = int(now.timestamp() * 1000)
    random = int.from_bytes(os.urandom(10))
    value = (
        (milliseconds << 80)
        | (0x7 << 76)
        | ((random >> 68 & 0xFFF) << 64)
        | (0b10 << 62)
        | (random & 0x3FFF_FFFF_FFFF_FFFF)
    )
    return f"{prefix}_{value:032x}"


def id_after(prefix: str, instant: datetime) -> str:
    """A text that sorts after every identifier created up to an instant, and before those of any later millisecond."""
    return f"{prefix}_{int(instant.timestamp() * 1000) + 1:012x}"
