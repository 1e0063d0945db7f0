"""A scene of the year."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Scene:
    """Something that people do at an instant."""

    at: datetime
    title: str
    play: Callable[[], Awaitable[object]]


def moment(year: int, month: int, day: int, hour: int = 14) -> datetime:
    """An hour of a day in UTC, by default during office hours."""
    return datetime(year, month, day, hour, tzinfo=UTC)
