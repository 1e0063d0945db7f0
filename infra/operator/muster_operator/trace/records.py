"""Finds a path's records on the topics: in the agency's partitions, around the time of the commit."""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from aiokafka import ConsumerRecord, TopicPartition

from muster_contracts import Envelope, MalformedRecord, Position, read_headers, topics
from muster_operator.reconcile.streams import TOPICS
from muster_operator.trace.facts import Published
from muster_runtime.messaging.producers import partition_of
from muster_runtime.messaging.topic_log import Record, TopicLog

# The topics keyed by agency. Topics keyed by person contain personal data, and no path continues from them.
KEYED = tuple(name for name in TOPICS if topics()[name].key == "agency_id")

# The tolerated difference between the services' clocks and Kafka's.
SKEW = timedelta(seconds=5)

# The maximum number of records to read from a partition, and from its tail if nothing was found around the time.
MOST_RECORDS = 200_000
TAIL_RECORDS = 10_000

Wanted = Callable[[Envelope, Record], bool]


class Records:
    """The topics of all services. `cut` names the partitions in which reading stopped at MOST_RECORDS."""

    def __init__(self, log: TopicLog) -> None:
        self._log = log
        self.cut: set[str] = set()
        log.consumer.pause(*log.partitions)  # otherwise the client would fetch them all from the beginning

    @property
    def unreadable(self) -> list[str]:
        """The records that were skipped because the client cannot decode them."""
        return sorted(map(str, self._log.unreadable))

    def partitions(self, agencies: Collection[str], names: Collection[str] = KEYED) -> list[TopicPartition]:
        """The partitions of these agencies' records; all partitions if there are no agencies."""
        found = []
        for name in names:
            own = [each for each in self._log.partitions if each.topic == self._log.topic_prefix + name]
            keys = {partition_of(agency.encode(), len(own)) for agency in agencies} if own else set()
            found += [each for each in own if not agencies or each.partition in keys]
        return found

    async def follow(
        self, partitions: Sequence[TopicPartition], start: datetime, end: datetime, quiet: timedelta, wanted: Wanted
    ) -> list[Published]:
        """The wanted records from `start` until `quiet` has passed without one; at least until `end` + `quiet`."""
        found: dict[str, Published] = {}
        while True:
            last, known = end + quiet, len(found)
            for partition in partitions:
                async with aclosing(self._since(partition, start - SKEW, last)) as records:
                    async for record in records:
                        if published := self._wanted(record, wanted):
                            found.setdefault(published.envelope.id, published)
            # The effects of an event may be on a partition that was already read.
            end = max([end, *(event.at for event in found.values() if event.at is not None)])
            if len(found) == known or end + quiet <= last:
                return list(found.values())

    async def tail(self, partitions: Sequence[TopicPartition], wanted: Wanted) -> list[Published]:
        """The wanted records among the last TAIL_RECORDS of each partition."""
        await self._log.seek_to_tail(partitions, TAIL_RECORDS)
        read = [record for each in partitions async for record in self._rest(each)]
        return [published for record in read if (published := self._wanted(record, wanted))]

    async def at(self, topic: str, agency_id: str, position: Position) -> Published | None:
        """The record of one event, found by binary search: a stream's positions grow with their offsets."""
        for partition in self.partitions({agency_id}, [topic]):
            low = (await self._log.consumer.beginning_offsets([partition]))[partition]
            high = (await self._log.consumer.end_offsets([partition]))[partition]
            while low < high:
                middle = (low + high) // 2
                self._log.consumer.seek(partition, middle)
                seen = await self._next_of(partition, agency_id, high)
                if seen is None or seen.position > position:
                    high = middle
                elif seen.position == position:
                    return seen
                else:
                    low = (seen.offset or 0) + 1
        return None

    async def _next_of(self, partition: TopicPartition, agency_id: str, before: int) -> Published | None:
        async with aclosing(self._rest(partition)) as records:
            async for record in records:
                if record.offset >= before:
                    return None
                if published := self._wanted(record, lambda envelope, _: envelope.agency_id == agency_id):
                    return published
        return None

    async def _since(self, partition: TopicPartition, start: datetime, last: datetime) -> AsyncGenerator[Record]:
        """The records of a partition between two instants by Kafka's clock."""
        at = (await self._log.consumer.offsets_for_times({partition: _milliseconds(start)}))[partition]
        if at is None:  # no record is that recent
            return
        self._log.consumer.seek(partition, at.offset)
        count = 0
        async with aclosing(self._rest(partition)) as records:
            async for record in records:
                count += 1
                if record.timestamp > _milliseconds(last):
                    return
                if count > MOST_RECORDS:
                    topic, number = self._log.place(partition)
                    self.cut.add(f"{topic}[{number}]")
                    return
                yield record

    async def _rest(self, partition: TopicPartition) -> AsyncGenerator[Record]:
        self._log.consumer.resume(partition)
        try:
            async for records in self._log.batches(partition):
                for record in records:
                    yield record
        finally:
            self._log.consumer.pause(partition)

    def _wanted(self, record: "ConsumerRecord[bytes, bytes]", wanted: Wanted) -> Published | None:
        try:
            envelope = read_headers(record.headers)
        except MalformedRecord:  # a reader parks it
            return None
        if not wanted(envelope, record):
            return None
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        topic = record.topic.removeprefix(self._log.topic_prefix)
        return Published(topic, envelope, at, record.partition, record.offset)


def _milliseconds(instant: datetime) -> int:
    return max(0, int(instant.timestamp() * 1000))
