"""The consumer's offsets: stored in Postgres after the effects, and committed to Kafka for tools.

If a stored offset is lost, records are read twice, and the duplicates are skipped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from muster_runtime.database.transactions import Database
from muster_runtime.errors import describe
from muster_runtime.messaging import offsets, passing
from muster_runtime.messaging.consumer.progress import Progress
from muster_runtime.messaging.offsets import Partition

# How long a batch waits for the commit to Kafka. Reading does not depend on that commit.
COMMIT_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class KeptOffsets:
    """The offsets of one process's partitions.

    `names` maps topic names in Kafka to the contracts' names; `commit` commits offsets to Kafka.
    """

    def __init__(
        self,
        database: Database,
        group: str,
        names: Mapping[str, str],
        progress: Progress,
        commit: Callable[[dict[TopicPartition, int]], Awaitable[None]],
    ) -> None:
        self._database = database
        self._group = group
        self._names = names
        self._in_kafka = {name: topic for topic, name in names.items()}
        self._progress = progress
        self._commit = commit
        self._server: datetime  # the server that last returned the offsets

    async def begins(self) -> dict[TopicPartition, int]:
        """The offset to continue from, for each partition that was read before."""
        async with self._database.connection() as connection:
            kept = await offsets.begins(connection, self._group)
            self._server = await offsets.server(connection)
        return {self._unnamed(named): offset for named, offset in kept.items() if named[0] in self._in_kafka}

    async def step(self, partition: TopicPartition, offset: int) -> int | None:
        """The offset to continue from if an operator let the group past the unreadable record at `offset`, if any."""
        named = self.named(partition)
        async with self._database.connection() as connection:
            onward = await passing.onward(connection, self._group, *named, offset)
            if onward is not None:
                before = self._progress.offsets.get(partition, offset)
                await offsets.keep(connection, self._group, {named: (before, onward)}, self._server)
        return onward

    async def advance(self, applied: dict[TopicPartition, int]) -> None:
        """Store that everything before these offsets is applied, and commit them."""
        read = self._progress.advance(applied)
        if applied:
            await asyncio.gather(self.keep(read), self.commit(applied))

    async def look_back(self) -> None:
        """Go back where the database has lost applied records, even if no new record arrives to reveal it."""
        kept = await self.begins()
        self._go_back({p for p, offset in self._progress.offsets.items() if kept.get(p, 0) < offset})
        if passed := self._progress.pass_what_is_no_record():
            await self.keep(passed)

    async def keep(self, read: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Store what was read of partitions; go back in those whose earlier offsets the database has lost."""
        named = {self.named(partition): span for partition, span in read.items()}
        try:
            async with self._database.connection() as connection:
                kept = await offsets.keep(connection, self._group, named, self._server)
        except Exception as error:  # nothing is lost: a later batch sees that they are not stored, and goes back
            _log.warning("offsets_not_kept", error=describe(error))
            return
        self._go_back({partition for partition in read if self.named(partition) not in kept})

    async def commit(self, applied: dict[TopicPartition, int]) -> None:
        """Commit to Kafka, for tools that show the group. Reading continues from the offsets in Postgres."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._commit(applied)
        except (KafkaError, TimeoutError, ValueError) as error:
            # The partition was taken away. Its new owner skips what is already applied.
            _log.info("offset_commit_lost", error=repr(error))

    def named(self, partition: TopicPartition) -> Partition:
        """A partition with the contract's name of its topic."""
        return self._names[partition.topic], partition.partition

    def go_back(self, lost: Collection[Partition]) -> None:
        """Read partitions again from where the database says, because it has lost applied records of them."""
        self._go_back({self._unnamed(named) for named in lost})

    def _go_back(self, lost: Collection[TopicPartition]) -> None:
        if lost:
            _log.error("database_went_back", partitions=[f"{p.topic}[{p.partition}]" for p in sorted(lost)])
            self._progress.go_back(lost)

    def _unnamed(self, named: Partition) -> TopicPartition:
        return TopicPartition(self._in_kafka[named[0]], named[1])
