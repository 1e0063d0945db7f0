"""A service's clock: the system clock, or in a sandbox a clock that is set by hand.

A handler uses the unit of work's `now` instead. Only leases and the dropping of old audit rows and usage partitions use
Postgres's clock, and log lines use the system clock.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

# A process whose clock differs from its database's by more than this writes nothing. An agency's time never goes back,
# so a process with a fast clock would move it ahead for all the others.
MAX_SKEW = timedelta(seconds=1)


class Clock(Protocol):
    """Returns the time, in UTC."""

    @property
    def virtual(self) -> bool:
        """Whether the time is set by hand, as only a sandbox's is, and may differ from every other clock."""
        ...

    def now(self) -> datetime:
        """The current instant."""
        ...


class SystemClock:
    """The system clock."""

    virtual = False

    def now(self) -> datetime:
        """The current instant, UTC."""
        return datetime.now(UTC)


class SandboxClock:
    """A clock that follows the system clock until it is moved, and then stays at the instant it was moved to."""

    virtual = True

    def __init__(self) -> None:
        self._moved_to: datetime | None = None
        self._on_move: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """The instant of the last move, or the system clock's before the first move."""
        return self._moved_to or datetime.now(UTC)

    def move(self, now: datetime) -> None:
        """Move the clock to `now`, and run the callbacks of `on_move`."""
        self._moved_to = now
        for callback in self._on_move:
            callback()

    def on_move(self, callback: Callable[[], None]) -> None:
        """Run `callback` after each move."""
        self._on_move.append(callback)


def is_ahead(instant: datetime, clock: Clock) -> bool:
    """Whether an agency's instant is ahead of the clock, so that no other agency may get it.

    Each transaction gives its agencies the latest of their instants, so such an agency must be applied alone.
    """
    return not clock.virtual and instant > clock.now() + MAX_SKEW


def skew(
    sent: datetime, entered: datetime, left: datetime, received: datetime, limit: timedelta = MAX_SKEW
) -> str | None:
    """How a process's clock and its server's disagree, or None if they may agree.

    The process reads its clock when it sends a statement (`sent`) and when the response arrives (`received`); the
    server reads its own in between (`entered`, `left`). However long the network takes, `sent` later than `entered`
    proves that the process's clock is ahead, and `left` later than `received` that it is behind.
    """
    if sent - entered > limit:
        return _disagreement(sent, entered)
    if left - received > limit:
        return _disagreement(received, left)
    return None


def _disagreement(process: datetime, server: datetime) -> str:
    return (
        f"this process's clock reads {_text(process)} and Postgres' reads {_text(server)}; they may differ by "
        f"at most {MAX_SKEW.total_seconds():g} s, or nothing is written: synchronize both with NTP"
    )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
