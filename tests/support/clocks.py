"""Clocks that are wrong."""

from datetime import UTC, datetime, timedelta


class ShiftedClock:
    """The machine's clock plus `offset`, which tests can change."""

    virtual = False

    def __init__(self, offset: timedelta) -> None:
        self.offset = offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset
