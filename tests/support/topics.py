"""Writes events to real topics like a correct producer, and reads them back from the beginning."""

import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.record.util import calc_crc32c

from muster_contracts import Envelope, Erasure, Event, event_id, read_headers, source_of, write_headers
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.events import Received
from muster_runtime.messaging.producers import partition_of

E = TypeVar("E", bound=Event)


class Producer:
    """Publishes events like the service that owns them: keyed, with gapless sequences per topic and agency.

    Their IDs are the tests' own, so that the owner's relay, if it runs too, does not take them for its own events.
    With `transactional_id`, each record is its own transaction, like those on compacted topics, and a marker follows.
    """

    def __init__(self, kafka: KafkaConnection, prefix: str, transactional_id: str | None = None) -> None:
        self._prefix = prefix
        self._kafka = AIOKafkaProducer(
            **kafka.options(), acks="all", enable_idempotence=True, transactional_id=transactional_id
        )
        self._transaction = self._kafka.transaction if transactional_id else nullcontext
        self._sequences: Counter[tuple[str, str]] = Counter()

    async def __aenter__(self) -> Self:
        await self._kafka.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._kafka.stop()

    async def publish(self, events: Iterable[Event], time: datetime) -> list[Envelope]:
        """Publish events as facts that became true at `time`; return their envelopes once Kafka has them all."""
        published = [(self._envelope(event, time), event) for event in events]
        for envelope, event in published:
            await self.put(envelope, event)
        return [envelope for envelope, _ in published]

    async def put(self, envelope: Envelope, event: Event, *, partition: int | None = None) -> None:
        """Write one record to the event's topic with exactly this envelope, even a repeated, late, or gapped one.

        By default, it goes to its key's partition.
        """
        value = None if isinstance(event, Erasure) else event.model_dump_json().encode()
        key, headers = event.record_key.encode(), write_headers(envelope)
        await self.put_raw(event.topic, key=key, value=value, headers=headers, partition=partition)

    async def put_raw(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        partition: int | None = None,
    ) -> None:
        """Write any record to a topic, named without the prefix."""
        async with self._transaction():
            await self._kafka.send_and_wait(
                self._prefix + topic, value=value, key=key, headers=headers, partition=partition
            )

    def _envelope(self, event: Event, time: datetime) -> Envelope:
        stream = event.topic, event.agency_id
        self._sequences[stream] += 1
        return Envelope(
            id="test/" + event_id(*stream, 1, self._sequences[stream]),
            source=source_of(event.topic),
            type=event.event_type,
            time=time,
            agency_id=event.agency_id,
            epoch=1,
            sequence=self._sequences[stream],
            correlation_id=new_id("cor", time),
        )


class Reader:
    """Reads topics from the beginning to their current end. It connects at the first read: many tests read nothing."""

    def __init__(self, kafka: KafkaConnection, prefix: str, topics: Iterable[str]) -> None:
        # Without a group, a consumer is assigned every partition of its topics.
        self._connect = partial(
            AIOKafkaConsumer,
            *(prefix + topic for topic in topics),
            **kafka.options(),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self._kafka: AIOKafkaConsumer | None = None
        self._records: list[ConsumerRecord[Any, Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._kafka is not None:
            await self._kafka.stop()

    async def records(self) -> list[ConsumerRecord[Any, Any]]:
        """Every record so far; those of one stream are in order."""
        if self._kafka is None:
            self._kafka = self._connect()
            await self._kafka.start()
        ends = await self._kafka.end_offsets(list(self._kafka.assignment()))
        for partition, end in ends.items():
            while await self._kafka.position(partition) < end:
                for batch in (await self._kafka.getmany(partition, timeout_ms=200)).values():
                    self._records.extend(batch)
        return self._records

    async def events(self, cls: type[E]) -> list[Received[E]]:
        """Every event of one type so far, with its envelope."""
        envelopes = [(read_headers(record.headers), record) for record in await self.records()]
        return [
            Received(envelope, partial(_decoded, cls, record))
            for envelope, record in envelopes
            if envelope.type == cls.event_type
        ]


def _decoded(cls: type[E], record: ConsumerRecord[Any, Any]) -> E:
    if record.value is None:
        agency_id = read_headers(record.headers).agency_id
        return cls.model_validate({"agency_id": agency_id, "subject_ref": (record.key or b"").decode()})
    return cls.model_validate_json(record.value)


async def put_unreadable(kafka: KafkaConnection, topic: str, agency_id: str, partitions: int) -> None:
    """Put on an agency's partition a record whose header name was damaged on its way to Kafka."""
    producer = AIOKafkaProducer(**kafka.options())
    await producer.start()
    try:
        builder = producer.create_batch()
        builder.append(key=agency_id.encode(), value=b"{}", timestamp=None, headers=[("name", b"")])
        builder.close()
        batch = bytearray(builder._build())
        place = batch.index(b"name")
        batch[place : place + 4] = b"\xff\xff\xff\xff"
        batch[17:21] = struct.pack(">I", calc_crc32c(bytes(batch[21:])))
        builder._buffer = bytes(batch)
        partition = partition_of(agency_id.encode(), partitions)
        await (await producer.send_batch(builder, topic, partition=partition))
    finally:
        await producer.stop()
