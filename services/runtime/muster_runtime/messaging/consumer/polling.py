"""Polls Kafka. A partition with records that the client cannot read waits, and the others are read."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from itertools import chain

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    TopicAuthorizationFailedError,
)

from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.errors import describe
from muster_runtime.messaging.client_internals import has_broken_down, hold_fetches
from muster_runtime.messaging.consumer.pausing import PausedPartitions
from muster_runtime.messaging.consumer.progress import Progress
from muster_runtime.messaging.consumer.refused import Refused, concerns_group
from muster_runtime.messaging.consumer.unreadable import UnreadablePartitions
from muster_runtime.pacing import Pace

# How long one poll waits for records. Newly assigned partitions wait for the poll to end, so it is short.
POLL_MS = 100

# How long the broker holds a fetch that finds nothing new. The next fetch must wait for it: for more records of a
# partition that has many, or for the first of newly assigned partitions.
FETCH_WAIT_MS = 200

# The same while no records arrive: the fetches of idle consumers would keep the broker busy.
IDLE_FETCH_WAIT_MS = 500

# The same while partitions are polled one by one: a fetch of the others must end while one is polled.
ALONE_FETCH_WAIT_MS = POLL_MS // 2

# The longest that one partition is polled alone. It is POLL_MS at first, and twice as long after each round that does
# not find the unreadable record: Kafka may answer slowly.
LONGEST_ALONE_MS = 8 * POLL_MS

# How many records to take from the client at once: it parses them without yielding to the event loop.
TAKE_RECORDS = 200

# How long to wait before asking the database again for the offsets, if it does not answer.
UNKNOWN_SECONDS = 0.5

# The pause between polls while only unreadable records arrive.
UNREADABLE_SECONDS = 1.0

_log = structlog.get_logger(__name__)

Polled = dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]


class Poller:
    """Takes records from the client.

    `begins` returns the offset to continue from for each partition that was read before. `step` returns the offset to
    continue from if an operator let the group past the unreadable record at an offset; otherwise None.
    """

    def __init__(
        self,
        progress: Progress,
        paused: PausedPartitions,
        begins: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        step: Callable[[TopicPartition, int], Awaitable[int | None]],
        batch_records: int,
    ) -> None:
        self._progress = progress
        self._paused = paused
        self._begins = begins
        self._step = step
        self._batch_records = batch_records
        self._unreadable = UnreadablePartitions()
        self._refused = Refused()
        self._alone_ms = POLL_MS
        self._found = False  # whether the round has found what cannot be read

    @property
    def unreadable(self) -> Collection[TopicPartition]:
        """The partitions that cannot be read."""
        return {*self._unreadable.partitions, *self._refused.partitions}

    @property
    def reasons(self) -> list[str]:
        """Human-readable reasons why partitions cannot be read."""
        return [*self._refused.reasons, *self._unreadable.reasons]

    def clear(self) -> None:
        """Forget the partitions: they are revoked."""
        self._unreadable.clear()
        self._refused.clear()

    async def poll(self, consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[bytes, bytes], ...]:
        """Poll for records. A partition that cannot be read waits; the others continue from what is applied."""
        if not consumer.assignment() <= self._progress.offsets.keys():
            await self._begin(consumer)
            return ()
        self._refused.try_again(consumer, self._paused)
        try:
            polled = await self._poll_all(consumer)
        except ConsumerStoppedError:
            raise
        except Exception as error:
            if has_broken_down(consumer):
                await asyncio.sleep(UNREADABLE_SECONDS)  # the supervisor ends the process
                return ()
            self._go_back(consumer, consumer.assignment())
            hold_fetches(consumer, FETCH_WAIT_MS)
            if concerns_group(error):
                await self._refused.wait_for_group(consumer, error)
                self._progress.restart_watchdog()  # the client is not to blame
                return ()
            self._progress.in_hand = True  # until all of several polls have returned
            self._found = False
            hold_fetches(consumer, ALONE_FETCH_WAIT_MS)
            polled = await self._poll_one_by_one(consumer)
            self._alone_ms = POLL_MS if self._found else min(2 * self._alone_ms, LONGEST_ALONE_MS)
            self._progress.in_hand = bool(polled)
            if not polled:
                await asyncio.sleep(UNREADABLE_SECONDS)
        self._unreadable.forget_read(polled)
        quiet = not polled and not self._unreadable.partitions
        hold_fetches(consumer, IDLE_FETCH_WAIT_MS if quiet else FETCH_WAIT_MS)
        return tuple(chain.from_iterable(polled.values()))

    async def _poll_all(self, consumer: AIOKafkaConsumer) -> Polled:
        """A batch with equal shares for the partitions that have records.

        The client on its own returns everything that it has of one partition before the next.
        """
        polled: Polled = defaultdict(list)
        room = self._batch_records
        pace = Pace()

        async def take(*partitions: TopicPartition, most: int, timeout_ms: int = 0) -> bool:
            """Take up to `most` records; returns whether there may be more."""
            nonlocal room
            taken = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=most)
            for partition, records in taken.items():
                polled[partition] += records
            number = sum(map(len, taken.values()))
            room -= number
            self._progress.in_hand = bool(polled)
            await pace.keep()
            return number == most

        waiting: Collection[TopicPartition] = consumer.assignment()
        share = max(1, min(room // (len(waiting) + 1), TAKE_RECORDS))
        if not await take(most=share, timeout_ms=POLL_MS):
            return polled
        while waiting and room:
            share = max(1, min(room // len(waiting), TAKE_RECORDS))
            waiting = [
                partition
                for partition in waiting
                if room
                and partition in self._progress.offsets  # it may have been revoked since the last poll
                and await take(partition, most=min(share, room))
            ]
        return polled

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Continue from the database's offsets.

        Kafka's committed offsets may include records that the database has lost.
        """
        try:
            begin = await self._begins()
        except RETRYABLE as error:
            self._progress.restart_watchdog()
            _log.warning("offsets_not_read", error=describe(error))
            await asyncio.sleep(UNKNOWN_SECONDS)
            return
        offsets = {partition: begin.get(partition, 0) for partition in consumer.assignment()}
        for partition, offset in offsets.items():
            consumer.seek(partition, offset)
        self._progress.begin(offsets)

    async def _poll_one_by_one(self, consumer: AIOKafkaConsumer) -> Polled:
        polled: Polled = {}
        partitions = consumer.assignment() - consumer.paused()
        for partition in partitions:
            limit = self._batch_records // len(partitions) + 1
            try:
                polled |= await consumer.getmany(partition, timeout_ms=self._alone_ms, max_records=limit)
            except ConsumerStoppedError:
                raise
            except Exception as error:
                if concerns_group(error):
                    raise  # the next poll raises it again
                if isinstance(error, TopicAuthorizationFailedError):
                    self._found = True
                    self._refused.put_aside(consumer, partition, error)
                    continue
                if partition not in consumer.assignment():
                    continue  # it was revoked
                self._go_back(consumer, [partition])
                if before := await self._poll_up_to_unreadable(consumer, partition, limit):
                    polled[partition] = before
        return polled

    async def _poll_up_to_unreadable(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, limit: int
    ) -> list[ConsumerRecord[bytes, bytes]]:
        """The records before the unreadable one, polled one at a time: a poll that fails loses everything in it."""
        before: list[ConsumerRecord[bytes, bytes]] = []
        while len(before) < limit:
            # The client fetches from a broker again once it has held other partitions' records for a while.
            wait_ms = self._alone_ms * (1 if before else 2)
            try:
                one = await consumer.getmany(partition, timeout_ms=wait_ms, max_records=1)
            except ConsumerStoppedError:
                raise
            except Exception as error:
                if partition in consumer.assignment() and not before:
                    await self._note_unreadable(consumer, partition, error)
                break
            if not one:
                break
            before += one[partition]
        return before

    async def _note_unreadable(self, consumer: AIOKafkaConsumer, partition: TopicPartition, error: Exception) -> None:
        """Make the partition wait where it is, or continue from where an operator said."""
        offset = await consumer.position(partition)
        place = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
        self._unreadable.note(partition, offset, error)
        self._found = True
        try:
            onward = await self._step(partition, offset)
        except RETRYABLE as unknown:
            _log.warning("step_not_asked_for", **place, error=repr(unknown))
            return
        if onward is not None:
            _log.warning("unreadable_record_passed", **place, onward=onward)
            with suppress(IllegalStateError):
                consumer.seek(partition, onward)
                self._progress.offsets[partition] = onward
                self._unreadable.forget(partition)

    def _go_back(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        """Seek back to the first record that is not applied yet."""
        for partition in partitions:
            if partition not in self._paused:
                with suppress(IllegalStateError, KeyError):
                    consumer.seek(partition, self._progress.offsets[partition])
