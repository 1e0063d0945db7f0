"""A projection that its service can rebuild from the topics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from muster_runtime.context import Context, new_context
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.topic_log import TopicLog
from muster_runtime.settings import Settings


class NotPublished(Exception):
    """Events that a rebuild must read did not leave the outbox in time."""


@dataclass(frozen=True)
class Difference:
    """A difference between the live projection and the topics, and the obstacle to correcting it, if any.

    It names people only by reference.
    """

    key: str
    found: str
    obstacle: str = ""


class Projection(ABC):
    """A projection that is rebuilt next to the live one, from the records of its topics."""

    def __init__(self, log: TopicLog) -> None:
        self.records = 0
        self._malformed = 0
        self._log = log

    @property
    def unread(self) -> int:
        """How many of the records are not an event of ours, or could not be decoded."""
        return self._malformed + self._log.skipped

    @abstractmethod
    async def replay(self) -> None:
        """Apply the topics' records in order, from where the last call stopped to their current ends."""

    @abstractmethod
    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from the replayed one. Raises NotPublished."""

    @abstractmethod
    async def swap(self, reason: str) -> Sequence[Difference]:
        """Replace the live projection with the replayed one, with an audit row. Returns how they differed.

        If there is an obstacle, the live projection stays as it is. Raises NotPublished.
        """


def correction(now: datetime) -> Context:
    """The origin of a rebuild's corrections; its actor appears in the audit trail."""
    return new_context("muster rebuild", now)


# Opens a projection with the worker role's database. It may keep one connection while another writes.
OpenProjection = Callable[[Settings, Database], AbstractAsyncContextManager[Projection]]
