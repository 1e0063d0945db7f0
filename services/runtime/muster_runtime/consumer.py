"""The consumer: hands Kafka's batches to the applier, on a FastStream batch subscriber.

Postgres commits first and Kafka after: a lost Kafka commit only brings duplicates, which are skipped.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from muster_contracts import is_agency_id, topics
from muster_runtime.applier import Applier
from muster_runtime.db import RETRYABLE
from muster_runtime.parking import Record, StreamFull, StreamStands
from muster_runtime.telemetry import APPLY_RETRIES, PAUSED_PARTITIONS, describe

# How long one poll waits for something new.
POLL_MS = 4

# The same for a partition alone, which is polled from anew and has nothing in the client's memory.
ALONE_POLL_MS = 100

# Between polls while nothing but what cannot be read has come.
UNREADABLE_SECONDS = 1.0

# The client keeps what it has fetched of each partition in memory, decompressed, until it is applied.
PARTITION_FETCH_BYTES = 128 * 1024

# How long a batch in hand may take at a shutdown or when its partitions are taken away.
DRAIN_SECONDS = 7

# How long leaving the group may take: a client that is stuck must not keep the process.
LEAVE_SECONDS = 3

# How often the consumer is looked after.
TEND_SECONDS = 5.0

# The stream of records that name no agency: worthless keys, however many, make no streams of their own.
UNKNOWN_AGENCY = "?"

# No agency's id is longer; a key of any length is not kept in memory.
AGENCY_BYTES = 20

_log = structlog.get_logger(__name__)


class ConsumerStuck(Exception):
    """There are records to read and nothing is done. The process must end: only a new client helps."""


class Consumer:
    """One process's membership in its service's consumer group.

    `held` says why the batch in hand is tried again and again, where it is.
    """

    def __init__(
        self,
        applier: Applier,
        topic_names: Sequence[str],
        *,
        client_id: str,
        bootstrap: str,
        topic_prefix: str = "",
        batch_records: int = 2_000,
        stuck_seconds: float = 60,
    ) -> None:
        self._applier = applier
        self._stuck_seconds = stuck_seconds
        self._names = {topic_prefix + topic: topic for topic in topic_names}
        self._compacted = {topic for topic in topic_names if topics()[topic].compacted}
        self._broker = KafkaBroker(
            bootstrap.split(","),  # FastStream takes one string for one broker
            client_id=client_id,
            apply_types=False,
            allow_auto_create_topics=False,
            logger=None,
        )
        self._subscriber = self._broker.subscriber(
            *self._names,
            group_id=applier.group,
            batch=True,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            rebalance_timeout_ms=60_000,
            listener=_DrainOnRevoke(self),
            parser=_parse,
            decoder=_decode,
        )
        self._subscriber(self._on_batch)
        self._subscriber.get_msg = self._poll  # type: ignore[method-assign]
        self._batch_records = batch_records
        # Asks where the topics end. On the subscriber's own connection the question would wait behind its fetch,
        # which the broker holds for half a second when there is nothing new.
        self._ends = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id=client_id, enable_auto_commit=False)
        self._applying = asyncio.Lock()
        self._offsets: dict[TopicPartition, int] = {}
        self.assigned = asyncio.Event()
        self._rebalancing = True
        self._stopping = False
        self._in_hand = False  # records that the client has handed over and that are not applied
        self._paused: dict[TopicPartition, StreamStands] = {}
        self._unreadable: dict[TopicPartition, str] = {}
        self._last_sign_at = time.monotonic()
        self.held: str | None = None
        self.applied = 0

    async def start(self) -> None:
        """Join the group and begin to apply."""
        await self._ends.start()
        await self._broker.start()

    async def stop(self) -> None:
        """Finish the batch in hand, if that can be done in time, and leave the group."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS), self._applying:
                pass
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._broker.stop()
                await self._ends.stop()

    async def tend(self) -> None:
        """Until cancelled: read on where a stream had to wait; raise ConsumerStuck when nothing moves."""
        pause = min(TEND_SECONDS, self._stuck_seconds / 3)
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            if time.monotonic() - before > 2 * pause:
                self._give_sign()  # the process itself stood still; that says nothing of its client
            try:
                await self._resume()
                await self._check_progress()
            except KafkaError as error:
                self._give_sign()  # Kafka is away: nothing is to be expected of the client
                _log.warning("consumer_not_tended", error=repr(error))
            except RETRYABLE as error:
                _log.warning("consumer_not_tended", error=repr(error))

    @property
    def complaints(self) -> list[str]:
        """Why the consumer is not well, in plain words."""
        reasons = [f"reading waits: {stands}" for stands in self._paused.values() if isinstance(stands, StreamFull)]
        reasons += [f"{p.topic}[{p.partition}] cannot be read: {why}" for p, why in self._unreadable.items()]
        if not self.assigned.is_set():
            reasons.append("the consumer has not joined its group yet")
        if self.held is not None:
            reasons.append(f"the consumer cannot apply: {self.held}")
        idle = time.monotonic() - self._last_sign_at
        if idle > self._stuck_seconds / 2:
            reasons.append(f"the consumer is behind and has done nothing for {idle:.0f} s")
        return reasons

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 while they are being shared out."""
        if self._rebalancing:
            return 1
        return await self._lag_of(self._kafka.assignment())

    async def _lag_of(self, partitions: Collection[TopicPartition]) -> int:
        if not partitions:
            return 0
        ends = await self._ends.end_offsets(list(partitions))
        return sum(max(0, end - self._applied_up_to(partition)) for partition, end in ends.items())

    def _applied_up_to(self, partition: TopicPartition) -> int:
        """The offset before which all is applied.

        A transaction's marker takes an offset too and is no record: what the client has passed with nothing in hand
        needs no applying.
        """
        applied = self._offsets.get(partition, 0)
        state = self._kafka._subscription.subscription.assignment.state_value(partition)
        if self._in_hand or state is None or not state.has_valid_position:
            return applied
        position: int = state.position
        return max(applied, position)

    @property
    def _kafka(self) -> AIOKafkaConsumer:
        consumer = self._subscriber.consumer
        if consumer is None:
            raise KafkaError("the consumer is not started")
        return consumer

    async def _poll(self, consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[bytes, bytes], ...]:
        """What has come. A partition that cannot be read waits; what the client had taken of others is read again."""
        try:
            polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=self._batch_records)
            self._in_hand = bool(polled)
        except ConsumerStoppedError:
            raise
        except Exception:
            self._go_back(consumer.assignment())
            self._in_hand = True  # of several polls, until the last has answered
            polled = await self._poll_one_by_one(consumer)
            self._in_hand = bool(polled)
            if not polled:
                await asyncio.sleep(UNREADABLE_SECONDS)
        for partition in polled:
            self._unreadable.pop(partition, None)
        return tuple(chain.from_iterable(polled.values()))

    async def _poll_one_by_one(
        self, consumer: AIOKafkaConsumer
    ) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
        polled: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = {}
        partitions = consumer.assignment() - self._paused.keys()
        for partition in partitions:
            limit = self._batch_records // len(partitions) + 1
            try:
                polled |= await consumer.getmany(partition, timeout_ms=ALONE_POLL_MS, max_records=limit)
            except ConsumerStoppedError:
                raise
            except Exception as error:
                if partition not in consumer.assignment():
                    continue  # it was taken away meanwhile
                if partition not in self._unreadable:
                    _log.error(
                        "partition_unreadable", topic=partition.topic, partition=partition.partition, exc_info=error
                    )
                self._unreadable[partition] = describe(error)
                self._go_back([partition])
        return polled

    def _go_back(self, partitions: Collection[TopicPartition]) -> None:
        """Read on from what is not applied yet."""
        for partition in partitions:
            if partition not in self._paused:
                with suppress(IllegalStateError, KeyError):
                    self._kafka.seek(partition, self._offsets[partition])

    async def _on_batch(self, raw: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Apply a batch, then commit it to Kafka. Never raises: FastStream would go on past an error."""
        async with self._applying:
            if self._stopping:
                return
            self._give_sign()
            if standing := await self._apply([self._record(consumed) for consumed in raw]):
                raw = self._put_aside(raw, standing)
            self.held = None
            self._give_sign()
            self.applied += len(raw)
            last = {(r.topic, r.partition): r.offset for r in raw}
            offsets = {TopicPartition(*partition): offset + 1 for partition, offset in last.items()}
            self._offsets |= offsets
            self._in_hand = False
            if offsets:
                await self._commit(offsets)

    async def _apply(self, records: Sequence[Record]) -> list[StreamStands]:
        """Apply records, however often it must be tried; answers the streams that must wait.

        What an event could be blamed for has parked it; so whatever error comes out of the applier is no event's fault.
        """
        return await AsyncRetrying(
            retry=retry_if_exception_type(),
            wait=wait_exponential_jitter(multiplier=0.1, max=5),
            before_sleep=self._note_retry,
            reraise=True,
        )(self._applier.apply, records)

    def _put_aside(
        self, raw: Sequence[ConsumerRecord[bytes, bytes]], standing: Sequence[StreamStands]
    ) -> list[ConsumerRecord[bytes, bytes]]:
        """Pause the partitions of streams that must wait and leave their records for later; answer the others."""
        by_stream = {(stands.topic, stands.agency_id): stands for stands in standing}
        waiting: dict[TopicPartition, StreamStands] = {}
        first: dict[TopicPartition, int] = {}
        for consumed in raw:
            partition, record = TopicPartition(consumed.topic, consumed.partition), self._record(consumed)
            first.setdefault(partition, consumed.offset)
            if stands := by_stream.get((record.topic, record.agency_id)):
                waiting[partition] = stands
        for partition, stands in waiting.items():
            _log.error("partition_paused", topic=stands.topic, agency_id=stands.agency_id, reason=str(stands))
            with suppress(IllegalStateError):  # it was taken away meanwhile
                self._kafka.pause(partition)
                self._kafka.seek(partition, first[partition])
                self._paused[partition] = stands
        PAUSED_PARTITIONS.labels(self._applier.service).set(len(self._paused))
        return [r for r in raw if TopicPartition(r.topic, r.partition) not in waiting]

    async def _resume(self) -> None:
        for partition, stands in list(self._paused.items()):
            if await self._applier.may_go_on(stands) and self._paused.get(partition) is stands:
                del self._paused[partition]
                with suppress(IllegalStateError):
                    self._kafka.resume(partition)
                _log.info("partition_resumed", topic=stands.topic, agency_id=stands.agency_id)
        PAUSED_PARTITIONS.labels(self._applier.service).set(len(self._paused))

    async def _check_progress(self) -> None:
        """A client can lose its way for good (aiokafka #1154): it is behind, nothing comes, and no error tells."""
        await self._ends.topics()  # raises where Kafka cannot be reached: then this is not the client's fault
        read = self._kafka.assignment() - self._paused.keys() - self._unreadable.keys()
        behind = await self._lag_of(read) if not self._rebalancing else 1
        if not behind:
            self._give_sign()
        idle = time.monotonic() - self._last_sign_at
        if idle > self._stuck_seconds and not self._applying.locked():
            raise ConsumerStuck(f"the consumer is {behind} records behind and has done nothing for {idle:.0f} s")

    def _give_sign(self) -> None:
        self._last_sign_at = time.monotonic()

    def _note_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.held = describe(error) if error else None
        self._give_sign()
        APPLY_RETRIES.labels(self._applier.service).inc()
        _log.warning("apply_retried", attempt=state.attempt_number, error=self.held)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            await self._kafka.commit(offsets)
        except (KafkaError, ValueError) as error:
            # A partition that was taken away; its new owner skips what is applied already.
            _log.info("offset_commit_lost", error=repr(error))

    def _record(self, consumed: ConsumerRecord[bytes, bytes]) -> Record:
        topic = self._names[consumed.topic]
        return Record(
            topic,
            self._agency_of(consumed, topic),
            consumed.partition,
            consumed.offset,
            consumed.key,
            consumed.value,
            consumed.headers,
        )

    def _agency_of(self, consumed: ConsumerRecord[bytes, bytes], topic: str) -> str:
        """The agency of a record: its key, but on a compacted topic its partitionkey attribute."""
        raw = consumed.key
        if topic in self._compacted:
            raw = dict(consumed.headers).get("ce_partitionkey")
        return _agency_named(raw) if raw and len(raw) <= AGENCY_BYTES else UNKNOWN_AGENCY


@lru_cache(maxsize=1024)
def _agency_named(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    return name if is_agency_id(name) else UNKNOWN_AGENCY


class _DrainOnRevoke(ConsumerRebalanceListener):
    """Lets the batch in hand finish before its partitions go to another process."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS), self._consumer._applying:
                pass
        except TimeoutError:
            # The agencies' locks still keep the old and the new owner apart.
            _log.warning("revoked_while_applying", partitions=len(revoked))
        self._consumer._rebalancing = True
        self._consumer._paused.clear()  # they are read anew, and paused again where that is still so
        self._consumer._offsets.clear()
        self._consumer._unreadable.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        consumer = self._consumer
        committed = await asyncio.gather(*(consumer._kafka.committed(partition) for partition in assigned))
        for partition, offset in zip(assigned, committed, strict=True):
            consumer._offsets.setdefault(partition, offset or 0)  # unless a batch of it is applied already
        consumer._give_sign()
        consumer._rebalancing = False
        consumer.assigned.set()


async def _parse(raw: Sequence[ConsumerRecord[bytes, bytes]]) -> KafkaMessage:
    """Hand the records on as they are: FastStream's own parser costs three times the whole of ours."""
    return KafkaMessage(raw_message=tuple(raw), body=b"", consumer=FAKE_CONSUMER)


async def _decode(message: KafkaMessage) -> Any:
    return message.raw_message
