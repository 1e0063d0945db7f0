"""A member of a consumer group: passes Kafka's batches to the applier, then stores the offsets."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.errors import describe
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.client_closing import CANCEL_SECONDS, close_consumer
from muster_runtime.messaging.client_internals import enable_rebootstrap, has_broken_down
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.consumer.applied_log import AppliedLog
from muster_runtime.messaging.consumer.hand_over import HAND_OVER_SECONDS, BatchInHand, DrainOnRevoke
from muster_runtime.messaging.consumer.kept_offsets import KeptOffsets
from muster_runtime.messaging.consumer.pausing import Consumed, PausedPartitions
from muster_runtime.messaging.consumer.polling import Poller
from muster_runtime.messaging.consumer.progress import ConsumerStuck, Progress
from muster_runtime.messaging.consumer.records import Records
from muster_runtime.messaging.consumer.same_topics import SameTopics
from muster_runtime.messaging.consumer.subscription import Subscription
from muster_runtime.messaging.offsets import DatabaseWentBack, Partition
from muster_runtime.messaging.parking import StreamBlocked
from muster_runtime.messaging.record_reader import Record
from muster_runtime.observability.telemetry import APPLY_RETRIES

# At shutdown, how long a batch may take after the member has left the group.
DRAIN_SECONDS = 7

# How long leaving the group may take, so that a stuck client cannot keep the process alive.
LEAVE_SECONDS = 3

# How long the whole stop may take.
STOP_SECONDS = HAND_OVER_SECONDS + DRAIN_SECONDS + 2 * (LEAVE_SECONDS + CANCEL_SECONDS)

# How often `supervise` checks the consumer.
SUPERVISE_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Consumer:
    """One process's membership in its service's consumer group.

    `topics` maps each topic to read to the number of partitions that it must have. `held` says why the batch in hand is
    being retried; it is None if it is not.
    """

    def __init__(
        self,
        applier: Applier,
        database: Database,
        topics: Mapping[str, int],
        *,
        client_id: str,
        kafka: KafkaConnection,
        topic_prefix: str,
        batch_records: int,
        stuck_seconds: float,
    ) -> None:
        self._applier = applier
        self._database = database
        self._stuck_seconds = stuck_seconds
        names = {topic_prefix + topic: topic for topic in topics}
        group = applier.subscriptions.group
        self._records = Records(names)
        self._applied_log = AppliedLog(names)
        self._batch = BatchInHand()
        # Asks where topics end. On the subscription's own connection, the request would wait behind a fetch that
        # the broker holds open while there is nothing new.
        self.ends = AIOKafkaConsumer(**kafka.options(), client_id=client_id, enable_auto_commit=False)
        enable_rebootstrap(self.ends)
        self._topics = SameTopics(database, group, names, self.ends)
        self._progress = Progress(self._client, self.ends, stuck_seconds)
        needed = {topic_prefix + topic: number for topic, number in topics.items()}
        self._paused = PausedPartitions(self._client, applier, self._records, needed)
        self._kept = KeptOffsets(database, group, names, self._progress, self._commit)
        self._poller = Poller(self._progress, self._paused, self._kept.begins, self._kept.step, batch_records)
        listener = DrainOnRevoke(self._batch, self._progress, self._forget)
        self._subscription = Subscription(kafka, client_id, names, group, listener, self._poller, self._on_batch)
        self._stopping = False
        self._stopped = False
        self.assigned = self._progress.assigned
        self.held: str | None = None
        self.applied = 0

    async def start(self) -> None:
        """Join the group and start applying."""
        await self.ends.start()
        try:
            await self._topics.look()
        except RETRYABLE as error:  # `supervise` checks again
            _log.warning("topics_not_compared", error=repr(error))
        await self._subscription.join()

    async def stop(self) -> None:
        """Leave the group, and finish the batch in hand if possible, within STOP_SECONDS.

        A slow batch finishes after the group is left, so that other agencies do not wait for it.
        """
        self._stopping = True
        await self._batch.is_finished(HAND_OVER_SECONDS)
        self._progress.end()  # from now on, the next owner stores the offsets
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._subscription.leave()
        await self._batch.is_finished(DRAIN_SECONDS)
        self._stopped = True
        self._applied_log.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._subscription.stop()
                await close_consumer(self.ends)

    async def supervise(self) -> None:
        """Until canceled, resume partitions that no longer have to wait.

        Raises ConsumerStuck if the consumer makes no progress, and TopicMadeAgain.
        """
        pause = min(SUPERVISE_SECONDS, self._stuck_seconds / 3)
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            if time.monotonic() - before > 2 * pause:
                self._progress.restart_watchdog()  # the whole process was paused; the client is not to blame
            if self._database.commits.standby_gone:
                self._progress.restart_watchdog()  # nothing can be applied; readiness says why
            if not self._stopping and has_broken_down(self._client()):
                raise ConsumerStuck("the Kafka client has failed: see the log for its error")
            try:
                await self._topics.look()
                await self._paused.resume()
                read = self._client().assignment() - set(self._paused) - set(self._poller.unreadable)
                handled = self._applier.subscriptions.handled
                await self._progress.check(read, is_applying=self._batch.locked(), handled=handled)
                await self._look_back()
            except KafkaError as error:
                self._progress.restart_watchdog()  # Kafka is unreachable; the client is not to blame
                _log.warning("consumer_not_supervised", error=repr(error))
            except RETRYABLE as error:
                _log.warning("consumer_not_supervised", error=repr(error))

    async def _look_back(self) -> None:
        """Go back where the database has lost applied records, even if no new record arrives to reveal it."""
        if self._stopping or self._batch.locked():
            return  # records received during a stop are not applied, though the client's position is past them
        async with self._batch:
            await self._kept.look_back()

    @property
    def warnings(self) -> list[str]:
        """Human-readable conditions that are a problem only if they last."""
        return self._progress.warnings

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons why the consumer is not ready.

        How many partitions it has, even none, is not a reason.
        """
        reasons = [*self._paused.reasons, *self._poller.reasons, *self._progress.reasons]
        if self.held is not None:
            reasons.append(f"the consumer cannot apply: {self.held}")
        return reasons

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 during a rebalance."""
        return await self._progress.lag()

    def _client(self) -> AIOKafkaConsumer:
        return self._subscription.kafka

    async def _on_batch(self, raw: Consumed) -> None:
        """Apply a batch, then store its offsets. It raises only once stopped: FastStream continues past an error."""
        async with self._batch:
            if self._stopping:
                return
            self._progress.restart_watchdog()
            raw = self._paused.put_repartitioned_aside(raw)
            raw, blocked = await self._apply_known(raw)
            if blocked:
                raw = self._paused.put_streams_aside(raw, blocked)
            self.held = None
            self._progress.restart_watchdog()
            if raw:
                self.applied += len(raw)
                self._applied_log.note(record.topic for record in raw)
            last = {(record.topic, record.partition): record.offset for record in raw}
            applied = {TopicPartition(*partition): offset + 1 for partition, offset in last.items()}
            self._progress.in_hand = False
            await self._kept.advance(applied)

    async def _apply_known(self, raw: Consumed) -> tuple[Consumed, list[StreamBlocked]]:
        """Apply the records of partitions that this process still reads at a known offset.

        Returns them and the blocked streams.

        Other partitions were taken away, or are being read again because the database has gone back.
        """
        while True:
            known = self._progress.offsets
            partitions = {TopicPartition(*place) for place in {(record.topic, record.partition) for record in raw}}
            if partitions - known.keys():
                raw = [record for record in raw if (record.topic, record.partition) in known]
            first = {self._kept.named(partition): known[partition] for partition in partitions & known.keys()}
            try:
                return raw, await self._apply([self._records.read(record) for record in raw], first)
            except DatabaseWentBack as error:
                self._kept.go_back(error.partitions)

    async def _apply(self, records: Sequence[Record], first: Mapping[Partition, int]) -> list[StreamBlocked]:
        """Apply records, retrying until it succeeds; returns the streams that must wait.

        The applier parks events that cause an error themselves, so no event is to blame for an error that it raises.
        """
        return await AsyncRetrying(
            retry=retry_if_exception(self._may_retry),
            wait=wait_exponential_jitter(multiplier=0.1, max=5),
            before_sleep=self._note_retry,
            reraise=True,
        )(self._applier.apply, records, first)

    def _may_retry(self, error: BaseException) -> bool:
        """Not once it has stopped, nor if it is canceled: a batch that is retried would keep the process alive."""
        return isinstance(error, Exception) and not isinstance(error, DatabaseWentBack) and not self._stopped

    def _note_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.held = describe(error) if error else None
        self._progress.restart_watchdog()
        APPLY_RETRIES.labels(self._applier.subscriptions.service).inc()
        _log.warning("apply_retried", attempt=state.attempt_number, error=self.held)

    async def _commit(self, applied: dict[TopicPartition, int]) -> None:
        await self._subscription.commit(applied)

    def _forget(self) -> None:
        """Forget the partitions: they were taken away."""
        self._paused.clear()
        self._poller.clear()
