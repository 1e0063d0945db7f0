"""The interface of a projection that its service can rebuild from the topics."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from muster_runtime.context import Context, new_context
from muster_runtime.database.transactions import Database
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


class Projection(Protocol):
    """A projection that is rebuilt next to the live one."""

    records: int

    @property
    def unread(self) -> int:
        """How many of the records could not be read."""

    async def replay(self) -> None:
        """Apply the topics' records in order, from where the last call stopped to their current ends."""

    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from the replayed one. Raises NotPublished."""

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Replace the live projection with the replayed one, with an audit row. Returns how they differed.

        If there is an obstacle, the live projection stays as it is. Raises NotPublished.
        """


def correction(now: datetime) -> Context:
    """The origin of a rebuild's corrections; its actor appears in the audit trail."""
    return new_context("muster rebuild", now)


# Opens a projection with the worker role's database. It may keep one connection while another writes.
OpenProjection = Callable[[Settings, Database], AbstractAsyncContextManager[Projection]]
