"""Follows the snapshot topic from its beginning, and keeps a copy of its contents."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import OffsetOutOfRangeError

from muster_contracts.entitlements import AgencyAccess
from muster_entitlements_client.access_copy import AccessCopy
from muster_entitlements_client.log_ids import LogIds, log_ids

# How often to ask for the topic's end, and how long to wait for an answer before reconnecting.
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 10.0

# How long to wait for closing: over TLS, uvloop may take 30 seconds.
CLOSE_SECONDS = 1.0

# The wait after a failure.
RETRY_SECONDS = 1.0

# How many records to apply before other tasks get their turn: a few milliseconds.
_RECORDS = 1_000

_log = logging.getLogger(__name__)


class _AnotherLog(Exception):
    """The copy is from another cluster, or from a topic that was recreated or lost its beginning or its end."""


class Follower:
    """Fills `copy`, and starts a new one if the log is different. `complete` is set while the copy can answer."""

    def __init__(self, kafka: Mapping[str, Any], topic_prefix: str) -> None:
        self.complete = asyncio.Event()
        self.failure: Exception | None = None
        self._kafka = kafka
        self._topic = topic_prefix + AgencyAccess.topic
        self._forget()

    @property
    def staleness_seconds(self) -> float | None:
        """How long ago the copy had everything in the topic; None if it never did."""
        return None if self._complete_at is None else time.monotonic() - self._complete_at

    async def run(self) -> None:
        """Follow until canceled. After a Kafka failure, continue from the same place.

        Raises Unreadable, and defects.
        """
        while True:
            try:
                await self._follow()
            except (_AnotherLog, OffsetOutOfRangeError) as error:
                _log.warning("muster snapshot topic read again from its beginning: %s", error)
                self._forget()
            except (RuntimeError, OSError, TimeoutError) as error:  # KafkaError, and what uvloop raises after a reset
                _log.warning("muster snapshot topic cannot be read: %r", error)
                self.failure = error
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # unreadable, or a defect: otherwise the copy would silently grow stale
                self.failure = error
                raise

    def _forget(self) -> None:
        """Start over; until the new copy is complete, it cannot answer."""
        self.complete.clear()
        self.copy = AccessCopy()
        self._complete_at: float | None = None
        self._ids: LogIds | None = None
        self._positions: dict[TopicPartition, int] = {}

    async def _follow(self) -> None:
        """Read from where the last connection stopped. Raises _AnotherLog, and what the clients raise."""
        client = AIOKafkaClient(**self._kafka)
        consumer = AIOKafkaConsumer(
            **self._kafka, enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed"
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await client.bootstrap()
                await consumer.start()
                await self._assign(consumer, await self._same_log(client))
            while True:
                asked_at = time.monotonic()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._same_log(client)
                    ends = await consumer.end_offsets(consumer.assignment())
                await self._read_to(consumer, ends)
                self._took_all(asked_at)
                await self._read_for(consumer, LOOK_SECONDS)
        finally:
            closing = [asyncio.create_task(consumer.stop()), asyncio.create_task(client.close())]
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)

    def _took_all(self, asked_at: float) -> None:
        """Note that the copy has everything in the topic as of then.

        Without an agency, the topic was recreated and is empty.
        """
        self.failure = None
        if self.copy.knows_agencies:
            self._complete_at = asked_at
            self.complete.set()

    async def _same_log(self, client: AIOKafkaClient) -> LogIds:
        """Raise _AnotherLog if the copy is from a different log than the current one."""
        ids = await log_ids(client, self._topic)
        if self._ids is not None and ids != self._ids:
            raise _AnotherLog(f"{self._topic} is {ids}, no longer {self._ids}")
        self._ids = ids
        return ids

    async def _assign(self, consumer: AIOKafkaConsumer, ids: LogIds) -> None:
        partitions = [TopicPartition(self._topic, number) for number in range(ids.partitions)]
        consumer.assign(partitions)
        for partition, offset in self._positions.items():
            consumer.seek(partition, offset)
        if fresh := [partition for partition in partitions if partition not in self._positions]:
            await consumer.seek_to_beginning(*fresh)

    async def _read_to(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        """Read until these ends are reached. Raises TimeoutError if nothing arrives for a long time.

        Raises _AnotherLog for an end below what the copy has read: by the next fetch, the log may have grown past it.
        """
        if lost := [each.partition for each, end in ends.items() if self._positions.get(each, 0) > end]:
            raise _AnotherLog(f"the last records of the partitions {lost} are gone")
        progress_at = time.monotonic()
        while [partition for partition, end in ends.items() if await consumer.position(partition) < end]:
            if await self._read(consumer, 0.2):
                progress_at = time.monotonic()
            elif time.monotonic() > progress_at + PATIENCE_SECONDS:
                raise TimeoutError(f"nothing has come for {PATIENCE_SECONDS:g} s")

    async def _read_for(self, consumer: AIOKafkaConsumer, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await self._read(consumer, left)

    async def _read(self, consumer: AIOKafkaConsumer, seconds: float) -> int:
        """Apply available records, waiting up to `seconds` if there are none; return how many there were."""
        read = await consumer.getmany(timeout_ms=math.ceil(seconds * 1000), max_records=_RECORDS)
        for partition, records in read.items():
            for record in records:
                self.copy.take(record.headers, record.key, record.value)
            self._positions[partition] = records[-1].offset + 1
        await asyncio.sleep(0)  # while records are buffered, getmany does not let other tasks run
        return sum(map(len, read.values()))
