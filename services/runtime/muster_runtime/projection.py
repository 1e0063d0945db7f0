"""The interface of a projection that its service can rebuild from the topics."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from muster_runtime.context import Context
from muster_runtime.database.transactions import Database
from muster_runtime.identifiers import new_id
from muster_runtime.settings import Settings


class NotPublished(Exception):
    """Events that a rebuild must read did not leave the outbox in time."""


@dataclass(frozen=True)
class Difference:
    """A difference of the live projection from the topics, and the obstacle, if any, to correcting it.

    It names people only by their references.
    """

    key: str
    found: str
    obstacle: str = ""


class Projection(Protocol):
    """A projection that is rebuilt next to the live one."""

    records: int
    unread: int  # of the records, those that could not be read

    async def replay(self) -> None:
        """Apply the topics' records in order, from where the last call stopped to their present ends."""

    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from what was replayed. Raises NotPublished."""

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Replace the live projection with the replayed one, with an audit row. Returns how they differed.

        If there is an obstacle, the live projection stays as it is. Raises NotPublished.
        """


def correction(now: datetime) -> Context:
    """The origin of what one rebuild corrects, and the actor in the audit trail."""
    return Context(actor="muster rebuild", correlation_id=new_id("cor", now))


# Opens a projection with the worker role's database, of which it may hold one connection while another one writes.
OpenProjection = Callable[[Settings, Database], AbstractAsyncContextManager[Projection]]
