"""What a projection must be able to do, so that it can be built anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Difference:
    """Where the live projection differs from the topics, and the obstacle, if any, to putting it right from them.

    People are told by their references alone.
    """

    key: str
    found: str
    obstacle: str = ""


class Projection(Protocol):
    """A projection that is built anew beside the live one."""

    records: int
    unread: int  # of the records, those that could not be read

    async def replay(self) -> None:
        """Apply what the topics hold from where they were read before, in order, up to their present end."""

    async def compare(self) -> Sequence[Difference]:
        """How the live projection differs from what was replayed."""

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Put what was replayed in the place of the live one, with an audit; answer how they differed.

        Where there is an obstacle the live one stays.
        """
