"""Agencies whose locks another transaction holds. They are applied last, so that waiting delays no other agency."""

from collections.abc import Iterable, Mapping, Sequence

from muster_runtime.database import locks
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.record_reader import Item

Streams = Mapping[StreamKey, Sequence[Item]]


# How long to wait in total for locks known to be held. The rest of the batch has been applied by then.
WAITS_SECONDS = 2.0

# How long to wait for one such lock at least: most agencies' transactions end within this time.
WAIT_SECONDS = 0.1


class HeldLocks:
    """The agencies whose locks were held elsewhere at the last attempt, in the order of their turns.

    A lock that is held for long must not cost a long wait at each attempt. But a busy agency's transactions take its
    lock from one another, so it is never free, and only a long wait gets it. So agencies take turns at the long wait.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, None] = {}

    def note(self, agency_id: str, *, held: bool, had_turn: bool) -> None:
        """Note whether an agency's lock was held elsewhere. One that `had_turn` goes to the end of the queue."""
        if not held or had_turn:
            self._held.pop(agency_id, None)
        if held:
            self._held.setdefault(agency_id)

    async def look(self, streams: Iterable[StreamKey]) -> bool:
        """Ask Postgres which of the streams' agencies are locked elsewhere; returns whether any is."""
        agencies = dict.fromkeys(agency_id for _, agency_id in streams)
        async with self._database.connection() as connection:
            free = await locks.free(connection, agencies)
        self._held = {agency_id: None for agency_id in [*self._held, *agencies] if agency_id not in free}
        return len(free) < len(agencies)

    async def look_again(self, streams: Iterable[StreamKey]) -> None:
        """Ask again if a lock of one of the streams' agencies was held; otherwise ask nothing."""
        if self._held and any(agency_id in self._held for _, agency_id in streams):
            await self.look(streams)

    def part(self, streams: Streams) -> tuple[Streams, Streams]:
        """Split the streams into those whose agencies' locks seem free and those whose locks are held, in turn."""
        if not self._held:
            return streams, {}
        turns = {agency_id: turn for turn, agency_id in enumerate(self._held)}
        held = sorted((stream for stream in streams if stream[1] in turns), key=lambda stream: turns[stream[1]])
        return (
            {stream: items for stream, items in streams.items() if stream[1] not in turns},
            {stream: streams[stream] for stream in held},
        )
