"""The only place that reads the wall clock."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time, UTC."""

    def now(self) -> datetime:
        """The current instant."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current instant, UTC."""
        return datetime.now(UTC)


class SandboxClock:
    """A clock that follows the machine's until it is moved, and then stands where it was put."""

    def __init__(self) -> None:
        self._moved_to: datetime | None = None
        self._on_move: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """The instant at which the clock stands."""
        return self._moved_to or datetime.now(UTC)

    def move(self, now: datetime) -> None:
        """Let the time stand at `now`, and tell all that wait for it."""
        self._moved_to = now
        for callback in self._on_move:
            callback()

    def on_move(self, callback: Callable[[], None]) -> None:
        """Call back after each move."""
        self._on_move.append(callback)
