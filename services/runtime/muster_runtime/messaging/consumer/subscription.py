"""Reads topics as a member of a consumer group, with a FastStream batch subscriber."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.client_internals import Subscriber, batch_subscriber, enable_rebootstrap
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.consumer.polling import IDLE_FETCH_WAIT_MS, Poller

# The most that a fetch takes of a partition, compressed. It stays in memory, decompressed, until it is applied.
PARTITION_FETCH_BYTES = 160 * 1024

# How long a dead member keeps its partitions: the shortest of these that the broker allows. A broker refuses sessions
# shorter than its group.min.session.timeout.ms, 6 s by default.
SESSIONS_MS = (3_000, 6_000, 10_000)

# How often a member sends a heartbeat; the response says whether the group is rebalancing. The event loop may be
# blocked for the session's length minus this.
HEARTBEAT_MS = 300

# How long a rebalance waits for a member that does not rejoin.
REBALANCE_MS = 60_000

_log = structlog.get_logger(__name__)


class Subscription:
    """A membership in a group. `handle` is called with the records that the poller takes from the client."""

    def __init__(
        self,
        kafka: KafkaConnection,
        client_id: str,
        topics: Collection[str],
        group: str,
        listener: ConsumerRebalanceListener,
        poller: Poller,
        handle: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._connection = kafka
        self._client_id = client_id
        self._topics = topics
        self._group = group
        self._listener = listener
        self._poller = poller
        self._handle = handle
        self._broker: KafkaBroker | None = None
        self._subscriber: Subscriber | None = None
        self._left = False

    @property
    def kafka(self) -> AIOKafkaConsumer:
        """The client. Raises KafkaError if it is not started."""
        if self._subscriber is None or self._subscriber.consumer is None:
            raise KafkaError("the consumer is not started")
        return self._subscriber.consumer

    async def join(self) -> None:
        """Join the group with the shortest session that the broker allows."""
        for session_ms in SESSIONS_MS:
            broker, self._subscriber = self._build(session_ms)
            self._broker = broker
            try:
                await broker.start()
                enable_rebootstrap(self.kafka)
                return
            except InvalidSessionTimeoutError:
                _log.warning("session_timeout_refused", group=self._group, session_timeout_ms=session_ms)
                await broker.stop()
                if session_ms == SESSIONS_MS[-1]:
                    raise

    async def leave(self) -> None:
        """Leave the group and stop reading; records in hand are still handled."""
        self._left = True
        if self._subscriber is not None and self._subscriber.consumer is not None:
            await close_consumer(self._subscriber.consumer)

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Commit offsets, unless the group has been left."""
        if not self._left:
            await self.kafka.commit(offsets)

    async def stop(self) -> None:
        """Close the client, if it was opened."""
        if self._broker is not None:
            await self._broker.stop()

    def _build(self, session_ms: int) -> tuple[KafkaBroker, Subscriber]:
        broker = KafkaBroker(
            self._connection.bootstrap.split(","),  # FastStream takes one string for one broker
            client_id=self._client_id,
            security=self._connection.security(),
            sasl_oauth_token_provider=self._connection.tokens,
            apply_types=False,
            allow_auto_create_topics=False,
            logger=None,
        )
        subscriber = batch_subscriber(
            broker,
            self._topics,
            self._poller.poll,
            self._handle,
            group_id=self._group,
            fetch_max_wait_ms=IDLE_FETCH_WAIT_MS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            listener=self._listener,
        )
        return broker, subscriber
