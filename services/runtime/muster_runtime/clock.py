"""The only place that reads the wall clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

# A clock that is further than this from its database's writes nothing: as the latest instant of an agency counts for
# all of its replicas, a fast clock would drag the agency ahead.
MAX_SKEW = timedelta(seconds=1)


class Clock(Protocol):
    """Tells the time, UTC."""

    @property
    def virtual(self) -> bool:
        """Whether its time is set by hand, as only a sandbox's is, and may differ from every other clock."""
        ...

    def now(self) -> datetime:
        """The current instant."""
        ...


class SystemClock:
    """The machine's clock."""

    virtual = False

    def now(self) -> datetime:
        """The current instant, UTC."""
        return datetime.now(UTC)


class SandboxClock:
    """A clock that follows the machine's until it is moved, and then stays at the instant it was moved to."""

    virtual = True

    def __init__(self) -> None:
        self._moved_to: datetime | None = None
        self._on_move: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """The clock's present instant."""
        return self._moved_to or datetime.now(UTC)

    def move(self, now: datetime) -> None:
        """Move the clock to `now`, and wake all that wait for it."""
        self._moved_to = now
        for callback in self._on_move:
            callback()

    def on_move(self, callback: Callable[[], None]) -> None:
        """Call back after each move."""
        self._on_move.append(callback)


def skew(sent: datetime, entered: datetime, left: datetime, received: datetime) -> str | None:
    """How a process's clock and its server's disagree, or None where they may agree.

    The server read its own clock at `entered` and `left`, between `sent` and `received` by the process's clock:
    however long the way, a `sent` after `entered` proves that the process is ahead, a `left` after `received`
    that it is behind.
    """
    if sent - entered > MAX_SKEW:
        return _disagreement(sent, entered)
    if left - received > MAX_SKEW:
        return _disagreement(received, left)
    return None


def _disagreement(process: datetime, server: datetime) -> str:
    return (
        f"the clock of this process says {_text(process)} and that of Postgres {_text(server)}; they may differ by "
        f"{MAX_SKEW.total_seconds():g} s at most, and until then nothing is written: set both by NTP"
    )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
