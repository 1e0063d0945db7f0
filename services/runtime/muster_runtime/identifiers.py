"""Identifiers that are prefixed, unique and sortable by time: a prefix and a UUIDv7 (RFC 9562, 5.7)."""

import os
from datetime import datetime


def new_id(prefix: str, now: datetime) -> str:
    """A new identifier, such as `inv_01987b3e…`, for a thing made at `now`."""
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
