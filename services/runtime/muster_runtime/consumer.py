"""The consumer: hands Kafka's batches to the applier, on a FastStream batch subscriber.

Postgres commits first and Kafka after: a lost Kafka commit only brings duplicates, which are skipped.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from muster_contracts import topics
from muster_runtime.applier import Applier
from muster_runtime.db import RETRYABLE
from muster_runtime.parking import Record

MAX_RECORDS = 2_000
# After an empty poll FastStream sleeps this long again: it is the larger part of an idle system's latency.
BATCH_TIMEOUT_MS = 2

# How long a batch in hand may take at a shutdown or when its partitions are taken away.
DRAIN_SECONDS = 20

# The stream of a record from which not even the agency can be read.
UNKNOWN_AGENCY = "?"

_log = structlog.get_logger(__name__)


class Consumer:
    """One process's membership in its service's consumer group."""

    def __init__(
        self,
        applier: Applier,
        topic_names: Sequence[str],
        *,
        client_id: str,
        bootstrap: str,
        topic_prefix: str = "",
    ) -> None:
        self._applier = applier
        self._names = {topic_prefix + topic: topic for topic in topic_names}
        self._compacted = {topic for topic in topic_names if topics()[topic].compacted}
        self._broker = KafkaBroker(
            bootstrap,
            client_id=client_id,
            apply_types=False,
            allow_auto_create_topics=False,
            logger=None,
        )
        self._subscriber = self._broker.subscriber(
            *self._names,
            group_id=applier.group,
            batch=True,
            max_records=MAX_RECORDS,
            batch_timeout_ms=BATCH_TIMEOUT_MS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            rebalance_timeout_ms=60_000,
            listener=_DrainOnRevoke(self),
            parser=_parse,
            decoder=_decode,
        )
        self._subscriber(self._on_batch)
        # Asks where the topics end. On the subscriber's own connection the question would wait behind its fetch,
        # which the broker holds for half a second when there is nothing new.
        self._ends = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id=client_id, enable_auto_commit=False)
        self._applying = asyncio.Lock()
        self._offsets: dict[TopicPartition, int] = {}
        self.assigned = asyncio.Event()
        self._rebalancing = True
        self._stopping = False
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
        await self._broker.stop()
        await self._ends.stop()

    async def lag(self) -> int:
        """How many records of this process's partitions are not applied yet; 1 while they are being shared out."""
        if self._rebalancing:
            return 1
        partitions = self._kafka.assignment()
        if not partitions:
            return 0
        ends = await self._ends.end_offsets(partitions)
        return sum(max(0, end - self._offsets.get(partition, 0)) for partition, end in ends.items())

    @property
    def _kafka(self) -> AIOKafkaConsumer:
        consumer = self._subscriber.consumer
        if consumer is None:
            raise KafkaError("the consumer is not started")
        return consumer

    async def _on_batch(self, raw: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Apply a batch, then commit it to Kafka. Never raises: FastStream would go on past an error."""
        async with self._applying:
            if self._stopping:
                return
            records = [self._record(consumed) for consumed in raw]
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(RETRYABLE),
                wait=wait_exponential_jitter(multiplier=0.1, max=5),
                before_sleep=_log_retry,
            ):
                with attempt:
                    await self._applier.apply(records)
            self.applied += len(raw)
            offsets = {TopicPartition(r.topic, r.partition): r.offset + 1 for r in raw}
            self._offsets |= offsets
            await self._commit(offsets)

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
        return (raw or b"").decode("utf-8", "replace").replace(",", "_").replace("\0", "_") or UNKNOWN_AGENCY


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

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        consumer = self._consumer
        for partition in assigned:
            committed = await consumer._kafka.committed(partition)
            consumer._offsets[partition] = committed or 0
        consumer._rebalancing = False
        consumer.assigned.set()


async def _parse(raw: Sequence[ConsumerRecord[bytes, bytes]]) -> KafkaMessage:
    """Hand the records on as they are: FastStream's own parser costs three times the whole of ours."""
    return KafkaMessage(raw_message=tuple(raw), body=b"", consumer=FAKE_CONSUMER)


async def _decode(message: KafkaMessage) -> Any:
    return message.raw_message


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("apply_retried", attempt=state.attempt_number, error=repr(error))
