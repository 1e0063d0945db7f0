"""A member of a consumer group: hands Kafka's batches to the applier.

Where it goes on is kept in Postgres, after the effects: what is lost of it only brings duplicates, which are skipped.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, RetryCallState, retry_if_not_exception_type, wait_exponential_jitter

from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.messaging import offsets, passing
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer.pausing import PausedPartitions
from muster_runtime.messaging.consumer.polling import Poller
from muster_runtime.messaging.consumer.progress import Progress
from muster_runtime.messaging.consumer.records import Records
from muster_runtime.messaging.consumer.subscription import Subscription
from muster_runtime.messaging.offsets import DatabaseWentBack, Partition
from muster_runtime.messaging.parking import StreamBlocked
from muster_runtime.messaging.rebootstrap import enable_rebootstrap
from muster_runtime.messaging.record_reader import Record
from muster_runtime.observability.telemetry import APPLY_RETRIES, describe

# How long a member finishes its batch before it gives up its partitions. Their next owner may start while the batch
# runs: it waits for the agencies' locks, and skips what is applied.
HAND_OVER_SECONDS = 0.5

# How long a batch may still take at a shutdown after the member has left the group.
DRAIN_SECONDS = 7

# How long leaving the group may take: a client that is stuck must not keep the process.
LEAVE_SECONDS = 3

# How often the consumer is looked after.
SUPERVISE_SECONDS = 5.0

Consumed = Sequence[ConsumerRecord[bytes, bytes]]

_log = structlog.get_logger(__name__)


class Consumer:
    """One process's membership in its service's consumer group.

    `topics` are those that it reads, with how many partitions each of them must have. `held` says why the batch in
    hand is tried again and again, where it is.
    """

    def __init__(
        self,
        applier: Applier,
        database: Database,
        topics: Mapping[str, int],
        *,
        client_id: str,
        bootstrap: str,
        topic_prefix: str = "",
        batch_records: int = 1_000,
        stuck_seconds: float = 60,
    ) -> None:
        self._applier = applier
        self._database = database
        self._stuck_seconds = stuck_seconds
        self._prefix = topic_prefix
        self._names = {topic_prefix + topic: topic for topic in topics}
        self._records = Records(self._names)
        # Asks where the topics end. On the subscription's own connection the question would wait behind its fetch,
        # which the broker holds when there is nothing new.
        self._ends = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id=client_id, enable_auto_commit=False)
        enable_rebootstrap(self._ends._client)
        self._progress = Progress(self._client, self._ends, stuck_seconds)
        needed = {topic_prefix + topic: number for topic, number in topics.items()}
        self._paused = PausedPartitions(self._client, applier, self._records, needed)
        self._poller = Poller(self._progress, self._paused, self._begins, self._step, batch_records)
        self._subscription = Subscription(
            bootstrap,
            client_id,
            self._names,
            applier.subscriptions.group,
            _DrainOnRevoke(self),
            self._poller,
            self._on_batch,
        )
        self._applying = asyncio.Lock()
        self._stopping = False
        self._server: datetime  # which has said last where reading goes on
        self.assigned = self._progress.assigned
        self.held: str | None = None
        self.applied = 0

    async def start(self) -> None:
        """Join the group and begin to apply."""
        await self._ends.start()
        await self._subscription.join()

    async def stop(self) -> None:
        """Leave the group, and finish the batch in hand if that can be done in time.

        A slow batch is finished after leaving, so that agencies outside it do not wait for it.
        """
        self._stopping = True
        await self._drained(HAND_OVER_SECONDS)
        self._progress.end()  # from now on the next owner keeps where reading goes on
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._subscription.leave()
        await self._drained(DRAIN_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._subscription.stop()
                await self._ends.stop()

    async def _drained(self, seconds: float) -> bool:
        """Whether the batch in hand is finished within so many seconds."""
        try:
            async with asyncio.timeout(seconds), self._applying:
                return True
        except TimeoutError:
            return False

    async def supervise(self) -> None:
        """Until cancelled: read on where a partition had to wait; raise ConsumerStuck when nothing moves."""
        pause = min(SUPERVISE_SECONDS, self._stuck_seconds / 3)
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            if time.monotonic() - before > 2 * pause:
                self._progress.restart_watchdog()  # the process itself was paused; that says nothing of its client
            if self._database.commits.standby_gone:
                self._progress.restart_watchdog()  # nothing can be applied, and readiness says why
            try:
                await self._paused.resume()
                read = self._kafka.assignment() - set(self._paused) - set(self._poller.unreadable)
                await self._progress.check(read, is_applying=self._applying.locked())
                await self._look_back()
            except KafkaError as error:
                self._progress.restart_watchdog()  # Kafka is away: nothing is to be expected of the client
                _log.warning("consumer_not_supervised", error=repr(error))
            except RETRYABLE as error:
                _log.warning("consumer_not_supervised", error=repr(error))

    async def _look_back(self) -> None:
        """Go back where the database has lost what was applied, though nothing new comes that would tell."""
        if self._stopping or self._applying.locked():
            return  # records that arrive during a stop are not applied, though the client is past them
        async with self._applying:
            kept = await self._begins()
            self._go_back({p for p, offset in self._progress.offsets.items() if kept.get(p, 0) < offset})
            if passed := self._progress.pass_what_is_no_record():
                await self._keep(passed)

    @property
    def reasons(self) -> list[str]:
        """Why the consumer is not well, in plain words."""
        reasons = [*self._paused.reasons, *self._poller.reasons, *self._progress.reasons]
        if self.held is not None:
            reasons.append(f"the consumer cannot apply: {self.held}")
        return reasons

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 while they are being shared out."""
        return await self._progress.lag()

    @property
    def _kafka(self) -> AIOKafkaConsumer:
        return self._subscription.kafka

    def _client(self) -> AIOKafkaConsumer:
        return self._kafka

    async def _begins(self) -> dict[TopicPartition, int]:
        """Where reading goes on, of each partition that was read before."""
        async with self._database.connection() as connection:
            kept = await offsets.begins(connection, self._applier.subscriptions.group)
            self._server = await offsets.server(connection)
        return {TopicPartition(self._prefix + topic, number): offset for (topic, number), offset in kept.items()}

    async def _step(self, partition: TopicPartition, offset: int) -> int | None:
        """The offset from which an operator has ordered to go on, where the record at this one cannot be read."""
        named, group = self._named(partition), self._applier.subscriptions.group
        async with self._database.connection() as connection:
            onward = await passing.onward(connection, group, *named, offset)
            if onward is not None:
                before = self._progress.offsets.get(partition, offset)
                await offsets.keep(connection, group, {named: (before, onward)}, self._server)
        return onward

    async def _on_batch(self, raw: Consumed) -> None:
        """Apply a batch, then commit it to Kafka. Never raises: FastStream would go on past an error."""
        async with self._applying:
            if self._stopping:
                return
            self._progress.restart_watchdog()
            raw = self._paused.put_repartitioned_aside(raw)
            raw, standing = await self._apply_known(raw)
            if standing:
                raw = self._paused.put_streams_aside(raw, standing)
            self.held = None
            self._progress.restart_watchdog()
            self.applied += len(raw)
            last = {(record.topic, record.partition): record.offset for record in raw}
            applied = {TopicPartition(*partition): offset + 1 for partition, offset in last.items()}
            read = self._progress.advance(applied)
            self._progress.in_hand = False
            if applied:
                await asyncio.gather(self._keep(read), self._commit(applied))

    async def _apply_known(self, raw: Consumed) -> tuple[Consumed, list[StreamBlocked]]:
        """Apply the records of partitions that are read on from where the database knows; answers them, and `_apply`'s.

        The other partitions were taken away, or are read again: the database has gone back.
        """
        while True:
            known = self._progress.offsets
            partitions = {TopicPartition(*place) for place in {(record.topic, record.partition) for record in raw}}
            if partitions - known.keys():
                raw = [record for record in raw if (record.topic, record.partition) in known]
            first = {self._named(partition): known[partition] for partition in partitions & known.keys()}
            try:
                return raw, await self._apply([self._records.read(record) for record in raw], first)
            except DatabaseWentBack as error:
                self._go_back({TopicPartition(self._prefix + topic, number) for topic, number in error.partitions})

    async def _apply(self, records: Sequence[Record], first: Mapping[Partition, int]) -> list[StreamBlocked]:
        """Apply records, however often it must be tried; answers the streams that must wait.

        What an event could be blamed for has parked it; so whatever error comes out of the applier is no event's fault.
        """
        return await AsyncRetrying(
            retry=retry_if_not_exception_type(DatabaseWentBack),
            wait=wait_exponential_jitter(multiplier=0.1, max=5),
            before_sleep=self._note_retry,
            reraise=True,
        )(self._applier.apply, records, first)

    def _note_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.held = describe(error) if error else None
        self._progress.restart_watchdog()
        APPLY_RETRIES.labels(self._applier.subscriptions.service).inc()
        _log.warning("apply_retried", attempt=state.attempt_number, error=self.held)

    async def _keep(self, read: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Keep what was read of partitions; go back where the database does not know of what was read before that."""
        named = {self._named(partition): span for partition, span in read.items()}
        try:
            async with self._database.connection() as connection:
                kept = await offsets.keep(connection, self._applier.subscriptions.group, named, self._server)
        except Exception as error:  # nothing is lost: a later batch finds that they are not kept, and goes back
            _log.warning("offsets_not_kept", error=describe(error))
            return
        self._go_back({partition for partition in read if self._named(partition) not in kept})

    def _named(self, partition: TopicPartition) -> Partition:
        """A partition by the contract's name of its topic."""
        return self._names[partition.topic], partition.partition

    def _go_back(self, lost: Collection[TopicPartition]) -> None:
        if lost:
            _log.error("database_went_back", partitions=[f"{p.topic}[{p.partition}]" for p in sorted(lost)])
            self._progress.go_back(lost)

    async def _commit(self, applied: dict[TopicPartition, int]) -> None:
        """Tell Kafka, for whoever looks at the group there: reading goes on from what is kept."""
        try:
            await self._subscription.commit(applied)
        except (KafkaError, ValueError) as error:
            # A partition that was taken away; its new owner skips what is applied already.
            _log.info("offset_commit_lost", error=repr(error))


class _DrainOnRevoke(ConsumerRebalanceListener):
    """Lets the batch in hand finish before its partitions go to another process."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if not await self._consumer._drained(HAND_OVER_SECONDS):
            _log.warning("revoked_while_applying", partitions=len(revoked))
        self._consumer._progress.end()
        self._consumer._paused.clear()
        self._consumer._poller.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer._progress.end()  # where each begins is asked for before it is read
        if not assigned:
            self._consumer._progress.begin({})
