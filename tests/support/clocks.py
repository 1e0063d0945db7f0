"""Clocks that are wrong."""

from datetime import UTC, datetime, timedelta


class ShiftedClock:
    """The machine's clock, ahead by `offset`; it can be set right."""

    virtual = False

    def __init__(self, offset: timedelta) -> None:
        self.offset = offset

    def now(self) -> datetime:
        """The wrong time."""
        return datetime.now(UTC) + self.offset
