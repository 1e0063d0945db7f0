"""Polls the usage topic. A partition with a record that the client cannot decode waits, and the others are read.

An operator lets the intake pass such a record, like any consumer: POST /v1/partitions/{topic}/{partition}/pass.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.domain.usage import size_of
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.errors import RetryableError, describe
from muster_runtime.messaging import passing
from muster_runtime.messaging.bounded_decoding import decompressing_at_most
from muster_runtime.messaging.client_internals import (
    assignment_of,
    has_broken_down,
    hold_fetches,
    known_position,
)
from muster_runtime.service import Runtime

# How much the broker collects, for up to POLL_MS, before it answers: a transaction for every few records would cost
# more than counting them.
FETCH_MIN_BYTES = 256 * 1024
POLL_MS = 100

# How long it waits for the first record after a pause. It answers at once when that arrives.
IDLE_POLL_MS = 400

# The most that one poll decompresses, and about the size of one batch. The topic's producers observe no limit.
MOST_BYTES = 16 * 1024 * 1024

# How long the partitions are polled one by one, together: one request brings records of all that a broker leads. The
# answer to the previous request may take IDLE_POLL_MS, and the answer to this one POLL_MS. A slow network takes longer:
# after a round that does not find the record, the next one may take twice as long.
ALONE_SECONDS = (IDLE_POLL_MS + 5 * POLL_MS) / 1000
LONGEST_ALONE_SECONDS = 8.0

# How long until a waiting partition is tried again.
WAIT_SECONDS = 2.0

Polled = Mapping[TopicPartition, list[ConsumerRecord[bytes, bytes]]]

_log = structlog.get_logger(__name__)


class PartitionsChanged(RetryableError):
    """The client has assigned its partitions again: the topic has others or, for a moment, none."""

    def __init__(self) -> None:
        super().__init__("the client has assigned its partitions again")


class ClientBrokenDown(RetryableError):
    """One of the client's internal tasks has ended. The client must be opened again."""


class Poller:
    """Takes records of some partitions from a client that was just opened at these offsets.

    `after` has the offsets at which partitions continue after a poll, except those that did not move.
    """

    def __init__(self, runtime: Runtime, consumer: AIOKafkaConsumer, begins: Mapping[TopicPartition, int]) -> None:
        self._runtime = runtime
        self._consumer = consumer
        self._assigned = assignment_of(consumer)
        self._following = dict(begins)
        self._waiting: dict[TopicPartition, float] = {}  # until when
        self._alone_seconds = ALONE_SECONDS
        self._first_alone = 0
        self.after: Mapping[TopicPartition, int] = {}

    async def poll(self, limit: int, wait_ms: int = IDLE_POLL_MS) -> Polled:
        """The next records. Raises what is retryable."""
        before = dict(self._following)
        if has_broken_down(self._consumer):
            raise ClientBrokenDown("the client of the usage topic has broken down")
        polled = await self._poll(limit, wait_ms)
        if assignment_of(self._consumer) is not self._assigned:
            raise PartitionsChanged
        if polled:
            hold_fetches(self._consumer, POLL_MS, FETCH_MIN_BYTES)
        elif wait_ms:
            hold_fetches(self._consumer, IDLE_POLL_MS)
        self._following |= {partition: records[-1].offset + 1 for partition, records in polled.items()}
        for partition, offset in self._following.items():  # a transaction marker has an offset, but is no record
            self._following[partition] = max(offset, known_position(self._consumer, partition) or 0)
        self.after = {each: offset for each, offset in self._following.items() if offset != before[each]}
        return polled

    async def _poll(self, limit: int, wait_ms: int) -> Polled:
        self._waiting = {each: until for each, until in self._waiting.items() if time.monotonic() < until}
        partitions = [each for each in self._following if each not in self._waiting]
        if not partitions:
            await asyncio.sleep(POLL_MS / 1000)
            return {}
        try:
            with decompressing_at_most(MOST_BYTES):
                return await self._poll_all(partitions, limit, wait_ms)
        except Exception as error:
            if _is_retryable(error):
                raise
        for partition in partitions:  # the error discarded what the client had taken of any of them
            self._consumer.seek(partition, self._following[partition])
        return await self._poll_one_by_one(partitions, limit)

    async def _poll_one_by_one(self, partitions: Sequence[TopicPartition], limit: int) -> Polled:
        """Records of each partition up to what cannot be decoded. Each time, another partition is polled first."""
        hold_fetches(self._consumer, POLL_MS)
        self._first_alone = (self._first_alone + 1) % len(partitions)
        polled = {}
        before = dict(self._following), dict(self._waiting)
        until = time.monotonic() + self._alone_seconds
        for partition in (*partitions[self._first_alone :], *partitions[: self._first_alone]):
            share = limit // len(partitions) + 1, MOST_BYTES // len(partitions)
            if records := await self._poll_alone(partition, *share, until):
                polled[partition] = records
        if (self._following, self._waiting) != before:
            self._alone_seconds = ALONE_SECONDS
        else:
            self._alone_seconds = min(2 * self._alone_seconds, LONGEST_ALONE_SECONDS)
        return polled

    async def _poll_all(self, partitions: Sequence[TopicPartition], limit: int, wait_ms: int) -> Polled:
        """Records in equal shares. By itself, the client returns all that it has of one partition before the next."""
        polled: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = {}
        room, share = limit, limit // len(partitions) + 1

        async def take(*some: TopicPartition, most: int, timeout_ms: int = 0) -> bool:
            """Take up to `most` records; returns whether there may be more."""
            nonlocal room
            taken = await self._consumer.getmany(*some, timeout_ms=timeout_ms, max_records=most)
            for partition, records in taken.items():
                polled.setdefault(partition, []).extend(records)
            number = sum(map(len, taken.values()))
            room -= number
            return number == most

        async def fill(partition: TopicPartition) -> bool:
            most = min(share - len(polled.get(partition, ())), room)
            return most <= 0 or await take(partition, most=most)

        waiting = list(partitions) if await take(*partitions, most=share, timeout_ms=wait_ms) else []
        while waiting and room > 0:
            waiting = [each for each in waiting if await fill(each)]
            share += room // max(len(waiting), 1) + 1
        return polled

    async def _poll_alone(
        self, partition: TopicPartition, limit: int, most_bytes: int, until: float
    ) -> list[ConsumerRecord[bytes, bytes]]:
        """The records before the one that cannot be decoded, one at a time: records decoded with it would be lost.

        Waits for the first one until a time of the monotonic clock, or for POLL_MS.
        """
        records: list[ConsumerRecord[bytes, bytes]] = []
        while len(records) < limit and most_bytes > 0:
            wait_ms = 0 if records else max(POLL_MS, int(1000 * (until - time.monotonic())))
            try:
                with decompressing_at_most(MOST_BYTES):
                    one = await self._consumer.getmany(partition, timeout_ms=wait_ms, max_records=1)
            except Exception as error:
                if _is_retryable(error):
                    raise
                if not records:
                    await self._wait_or_pass(partition, error)
                break
            if not one:
                break
            records += one[partition]
            most_bytes -= size_of(records[-1])
        return records

    async def _wait_or_pass(self, partition: TopicPartition, error: Exception) -> None:
        offset = await self._consumer.position(partition)
        place = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
        async with self._runtime.database.connection() as connection:
            onward = await passing.onward(
                connection, self._runtime.group, FeatureUsed.topic, partition.partition, offset
            )
        if onward is None:
            _log.error("usage_partition_unreadable", **place, error=describe(error))
            self._waiting[partition] = time.monotonic() + WAIT_SECONDS
        else:
            _log.warning("unreadable_usage_passed", **place, onward=onward)
            self._following[partition] = onward
            self._consumer.seek(partition, onward)


def _is_retryable(error: Exception) -> bool:
    """Whether the client, not the record, is the cause."""
    return isinstance(error, (KafkaError, *RETRYABLE)) and not isinstance(error, CorruptRecordException)
