"""Agencies whose locks another transaction holds: they are applied last, so that one wait delays no other agency."""

from collections.abc import Iterable, Mapping, Sequence

from muster_runtime.database import locks
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item

Streams = Mapping[StreamKey, Sequence[Item]]


class HeldLocks:
    """The agencies whose locks were held elsewhere when they were last asked for, in the order of their turns.

    A lock that is held for long is not worth a long wait at every attempt. But the transactions of a busy agency take
    its lock from one another, so that it is never free, and only who waits long enough gets it: each agency in turn.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, None] = {}

    def note(self, agency_id: str, *, held: bool) -> None:
        """The lock of this agency could not be had, or was had."""
        if held:
            self._held.setdefault(agency_id)
        else:
            self._held.pop(agency_id, None)

    async def look(self, streams: Iterable[StreamKey]) -> bool:
        """Ask Postgres for the locks of the streams' agencies; whether any is held elsewhere."""
        agencies = dict.fromkeys(agency_id for _, agency_id in streams)
        async with self._database.connection() as connection:
            free = await locks.free(connection, agencies)
        self._held = {agency_id: None for agency_id in [*self._held, *agencies] if agency_id not in free}
        return len(free) < len(agencies)

    async def look_again(self, streams: Iterable[StreamKey]) -> str | None:
        """Ask once more where one of the streams' agencies was held; nothing is asked where none was.

        Returns the agency whose turn it is: its lock is worth a long wait, and the others' turns come first next time.
        """
        agencies = {agency_id for _, agency_id in streams}
        if self._held.keys() & agencies:
            await self.look(streams)
        turn = next((agency_id for agency_id in self._held if agency_id in agencies), None)
        if turn is not None:
            self._held[turn] = self._held.pop(turn)
        return turn

    def part(self, streams: Streams) -> tuple[Streams, Streams]:
        """The streams of agencies whose locks are free as far as is known, and of those whose are held."""
        if not self._held:
            return streams, {}
        return (
            {stream: items for stream, items in streams.items() if stream[1] not in self._held},
            {stream: items for stream, items in streams.items() if stream[1] in self._held},
        )
