"""Agencies whose locks another transaction holds: they are applied last, so that one wait delays no other agency."""

from collections.abc import Iterable, Mapping, Sequence

from muster_runtime.database import locks
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item

Streams = Mapping[StreamKey, Sequence[Item]]


# How long all waits for locks that are known to be held may take together. The rest of the batch is applied by then.
WAITS_SECONDS = 2.0

# How long one of them takes at least: the transactions of most agencies end within this time.
WAIT_SECONDS = 0.1


class HeldLocks:
    """The agencies whose locks were held elsewhere when they were last asked for, in the order of their turns.

    A lock that is held for long must not cost each attempt a long wait. But the transactions of a busy agency take its
    lock from one another, so that it is never free, and only who waits long enough gets it. So agencies take turns.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, None] = {}

    def note(self, agency_id: str, *, held: bool, had_turn: bool) -> None:
        """The lock of this agency could not be had, so that the others' turns come first if it had one; or was had."""
        if not held or had_turn:
            self._held.pop(agency_id, None)
        if held:
            self._held.setdefault(agency_id)

    async def look(self, streams: Iterable[StreamKey]) -> bool:
        """Ask Postgres for the locks of the streams' agencies; whether any is held elsewhere."""
        agencies = dict.fromkeys(agency_id for _, agency_id in streams)
        async with self._database.connection() as connection:
            free = await locks.free(connection, agencies)
        self._held = {agency_id: None for agency_id in [*self._held, *agencies] if agency_id not in free}
        return len(free) < len(agencies)

    async def look_again(self, streams: Iterable[StreamKey]) -> None:
        """Ask once more where one of the streams' agencies was held; nothing is asked where none was."""
        if self._held and any(agency_id in self._held for _, agency_id in streams):
            await self.look(streams)

    def part(self, streams: Streams) -> tuple[Streams, Streams]:
        """The streams of agencies whose locks are free as far as is known, and of those whose are held, in turn."""
        if not self._held:
            return streams, {}
        turns = {agency_id: turn for turn, agency_id in enumerate(self._held)}
        held = sorted((stream for stream in streams if stream[1] in turns), key=lambda stream: turns[stream[1]])
        return (
            {stream: items for stream, items in streams.items() if stream[1] not in turns},
            {stream: streams[stream] for stream in held},
        )
