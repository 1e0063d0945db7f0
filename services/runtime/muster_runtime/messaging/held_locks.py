"""Agencies whose locks another transaction holds: they are applied last, so that one wait delays no other agency."""

from collections.abc import Iterable, Mapping, Sequence

from muster_runtime.database import locks
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item

Streams = Mapping[StreamKey, Sequence[Item]]


class HeldLocks:
    """The agencies whose locks were held elsewhere when they were last asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: set[str] = set()

    def note(self, agency_id: str) -> None:
        """The lock of this agency could not be had."""
        self._held.add(agency_id)

    async def look(self, streams: Iterable[StreamKey]) -> bool:
        """Ask Postgres for the locks of the streams' agencies; whether any is held elsewhere."""
        agencies = {agency_id for _, agency_id in streams}
        async with self._database.connection() as connection:
            free = await locks.free(connection, agencies)
        self._held = self._held - free | (agencies - free)
        return free != agencies

    async def look_again(self, streams: Iterable[StreamKey]) -> None:
        """Ask once more where one of the streams' agencies was held; nothing is asked where none was."""
        if self._held and any(agency_id in self._held for _, agency_id in streams):
            await self.look(streams)

    def part(self, streams: Streams) -> tuple[Streams, Streams]:
        """The streams of agencies whose locks are free as far as is known, and of those whose are held."""
        if not self._held:
            return streams, {}
        return (
            {stream: items for stream, items in streams.items() if stream[1] not in self._held},
            {stream: items for stream, items in streams.items() if stream[1] in self._held},
        )
