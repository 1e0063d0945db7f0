"""Where the consumer continues to read: kept in Postgres after the effects, and committed to Kafka for tools.

What is lost of it only brings duplicates, which are skipped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from muster_runtime.errors import describe
from muster_runtime.database.transactions import Database
from muster_runtime.messaging import offsets, passing
from muster_runtime.messaging.consumer.progress import Progress
from muster_runtime.messaging.offsets import Partition

# How long a batch waits for Kafka to know its offsets: no reading depends on that.
COMMIT_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class KeptOffsets:
    """The offsets of one process's partitions.

    `names` are the contracts' names of the topics by those in Kafka; `commit` commits offsets to Kafka.
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
        self._server: datetime  # the server that was last asked where reading continues

    async def begins(self) -> dict[TopicPartition, int]:
        """The offset from which to continue, for each partition that was read before."""
        async with self._database.connection() as connection:
            kept = await offsets.begins(connection, self._group)
            self._server = await offsets.server(connection)
        return {self._unnamed(named): offset for named, offset in kept.items() if named[0] in self._in_kafka}

    async def step(self, partition: TopicPartition, offset: int) -> int | None:
        """The offset from which an operator lets reading continue, where the record at this one cannot be read."""
        named = self.named(partition)
        async with self._database.connection() as connection:
            onward = await passing.onward(connection, self._group, *named, offset)
            if onward is not None:
                before = self._progress.offsets.get(partition, offset)
                await offsets.keep(connection, self._group, {named: (before, onward)}, self._server)
        return onward

    async def advance(self, applied: dict[TopicPartition, int]) -> None:
        """Keep that everything before these offsets is applied, and commit them."""
        read = self._progress.advance(applied)
        if applied:
            await asyncio.gather(self.keep(read), self.commit(applied))

    async def look_back(self) -> None:
        """Go back where the database has lost what was applied, though no record comes that would show it."""
        kept = await self.begins()
        self._go_back({p for p, offset in self._progress.offsets.items() if kept.get(p, 0) < offset})
        if passed := self._progress.pass_what_is_no_record():
            await self.keep(passed)

    async def keep(self, read: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Keep what was read of partitions; go back where the database does not know of what was read before that."""
        named = {self.named(partition): span for partition, span in read.items()}
        try:
            async with self._database.connection() as connection:
                kept = await offsets.keep(connection, self._group, named, self._server)
        except Exception as error:  # nothing is lost: a later batch finds that they are not kept, and goes back
            _log.warning("offsets_not_kept", error=describe(error))
            return
        self._go_back({partition for partition in read if self.named(partition) not in kept})

    async def commit(self, applied: dict[TopicPartition, int]) -> None:
        """Commit to Kafka, for tools that show the group: reading continues from what is kept in Postgres."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._commit(applied)
        except (KafkaError, TimeoutError, ValueError) as error:
            # A partition that was taken away; its new owner skips what is applied already.
            _log.info("offset_commit_lost", error=repr(error))

    def named(self, partition: TopicPartition) -> Partition:
        """A partition by the contract's name of its topic."""
        return self._names[partition.topic], partition.partition

    def go_back(self, lost: Collection[Partition]) -> None:
        """Read partitions again from where the database says: it has lost what was applied of them."""
        self._go_back({self._unnamed(named) for named in lost})

    def _go_back(self, lost: Collection[TopicPartition]) -> None:
        if lost:
            _log.error("database_went_back", partitions=[f"{p.topic}[{p.partition}]" for p in sorted(lost)])
            self._progress.go_back(lost)

    def _unnamed(self, named: Partition) -> TopicPartition:
        return TopicPartition(self._in_kafka[named[0]], named[1])
