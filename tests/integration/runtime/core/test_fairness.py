"""One agency's many events delay no other agency: the tests count what precedes an event, and time nothing."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from muster_contracts.entitlements import SeatAssigned
from muster_operator.topics import connect
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer import polling as polling_module
from muster_runtime.messaging.consumer.pausing import PausedPartitions
from muster_runtime.messaging.consumer.polling import FETCH_WAIT_MS, IDLE_FETCH_WAIT_MS, Polled, Poller
from muster_runtime.messaging.consumer.progress import Progress
from muster_runtime.messaging.consumer.records import Records
from muster_runtime.messaging.consumer.subscription import PARTITION_FETCH_BYTES
from muster_runtime.messaging.lane import READ_EVENTS
from muster_runtime.messaging.producers import partition_of
from muster_runtime.messaging.record_reader import Item, Record, RecordReader
from muster_runtime.messaging.subscriptions import Subscriptions
from tests.integration.runtime.core.conftest import delay_fetches, put_unreadable
from tests.integration.runtime.core.probe.service import keep_seats
from tests.integration.runtime.core.relays import burst, outbox_is_empty, partition, relaying, seat, write
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import PARTITIONS, RunningService
from tests.support.turns import counted_turns

AGENCIES = [f"A{number}" for number in range(20)]


async def test_bursts_of_some_agencies_let_anothers_event_pass_in_the_outbox(idle_probe: RunningService) -> None:
    first, second, other = [name for name in AGENCIES if partition(name) == partition("A0")][:3]
    await burst(idle_probe, first, 5 * READ_EVENTS)
    await burst(idle_probe, second, 5 * READ_EVENTS)
    await write(idle_probe, other, "quick")
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=60)
    records = [r for r in await idle_probe.reader.records() if r.topic.endswith(SeatAssigned.topic)]
    (offset,) = [record.offset for record in records if record.key == other.encode()]
    assert offset <= 2 * READ_EVENTS  # one read of each burst, not all ten
    for agency_id in (first, second):
        events = [e for e in await idle_probe.published(SeatAssigned) if e.envelope.agency_id == agency_id]
        assert [event.envelope.sequence for event in events] == list(range(1, 5 * READ_EVENTS + 1))


async def test_a_batch_has_something_of_every_partition_that_the_client_holds(idle_probe: RunningService) -> None:
    busy, quiet = "A0", next(name for name in AGENCIES if partition(name) != partition("A0"))
    topic = idle_probe.topic_prefix + SeatAssigned.topic
    await idle_probe.publish(*(seat(busy, str(number)) for number in range(50)))
    async with polling(idle_probe, batch_records=10) as (poller, kafka):
        await eventually(lambda: kafka.highwater(TopicPartition(topic, partition(busy))) == 50)
        await idle_probe.publish(seat(quiet, "quick"))
        await eventually(lambda: kafka.highwater(TopicPartition(topic, partition(quiet))) == 1)
        batches = [[(record.key or b"").decode() for record in await poller.poll(kafka)] for _ in range(6)]
    assert quiet in batches[0]
    assert [len(batch) for batch in batches] == [10, 10, 10, 10, 10, 1]


async def test_the_broker_holds_fetches_longer_while_no_records_arrive(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held fetch delays the next one, which matters while there are records; without records, it saves CPU."""
    held: list[int] = []
    send: Callable[..., Awaitable[Any]] = AIOKafkaClient.send

    async def noting(client: AIOKafkaClient, node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            held.append(request._max_wait_ms)
        return await send(client, node, request, **options)

    monkeypatch.setattr(AIOKafkaClient, "send", noting)
    await idle_probe.publish(seat("A0", "first"))
    async with polling(idle_probe, batch_records=10) as (poller, kafka):
        await eventually(lambda: poller.poll(kafka))
        held.clear()
        await eventually(lambda: held)
        assert {*held} == {FETCH_WAIT_MS}
        assert await poller.poll(kafka) == ()
        await eventually(lambda: held[-1] == IDLE_FETCH_WAIT_MS)


async def test_an_unreadable_record_is_found_among_many_partitions_and_delays_none_of_them(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each partition is polled alone for a moment. The broker must not hold the fetch of the others for longer."""
    partitions = 12
    monkeypatch.setattr(polling_module, "UNREADABLE_SECONDS", 0.0)
    rounds = 0
    poll_one_by_one = Poller._poll_one_by_one

    async def counting(poller: Poller, consumer: AIOKafkaConsumer) -> Polled:
        nonlocal rounds
        rounds += 1
        return await poll_one_by_one(poller, consumer)

    monkeypatch.setattr(Poller, "_poll_one_by_one", counting)
    async with (
        wide_topic(idle_probe, partitions) as wide,
        polling(idle_probe, 100, wide, partitions) as (poller, consumer),
    ):

        async def polled() -> list[bytes | None]:
            """The keys of the next poll that returns records, or polls the partitions one by one."""
            before = rounds
            async with asyncio.timeout(30):
                while not (records := await poller.poll(consumer)) and rounds == before:
                    pass
            return [record.key for record in records]

        def agency_of(place: TopicPartition) -> str:
            names = (f"A{number}" for number in itertools.count())
            return next(name for name in names if partition_of(name.encode(), partitions) == place.partition)

        assert await poller.poll(consumer) == ()
        _, _, third, fourth, *_ = consumer.assignment() - consumer.paused()
        await put_unreadable(idle_probe, agency_of(third), wide, partitions)
        while not poller.unreadable and rounds < 3:  # the first round, unless the machine is busy
            assert await polled() == []
        assert poller.unreadable == {third}
        await idle_probe.producer.put_raw(wide, key=agency_of(fourth).encode(), value=b"{}", headers=[])
        assert await polled() == [agency_of(fourth).encode()]


async def test_one_fetch_returns_a_burst_of_every_partition(idle_probe: RunningService) -> None:
    agencies = ["A0", next(name for name in AGENCIES if partition(name) != partition("A0"))]
    for agency_id in agencies:
        await burst(idle_probe, agency_id, READ_EVENTS // 2)
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=60)
    kafka = AIOKafkaConsumer(
        bootstrap_servers=idle_probe.runtime.settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
    )
    await kafka.start()
    kafka.assign([TopicPartition(idle_probe.topic_prefix + SeatAssigned.topic, number) for number in range(PARTITIONS)])
    fetched = await eventually(lambda: kafka.getmany())
    await kafka.stop()
    assert len(fetched) == PARTITIONS


async def test_a_large_batch_lets_the_event_loop_run(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await burst(idle_probe, "A0", READ_EVENTS)
    async with relaying(idle_probe):
        await eventually(lambda: outbox_is_empty(idle_probe), timeout=60)
    topic = idle_probe.topic_prefix + SeatAssigned.topic
    async with polling(idle_probe, batch_records=READ_EVENTS) as (poller, kafka):
        await eventually(lambda: kafka.highwater(TopicPartition(topic, partition("A0"))) == READ_EVENTS)
        async with counted_turns() as turns:
            batch = await poller.poll(kafka)
            polled = turns()
    assert polled > 2

    database = idle_probe.runtime.database
    subscriptions = Subscriptions({SeatAssigned: keep_seats}, service="probe", group="probe", clock=database.clock)
    applier = Applier(database, subscriptions, LIMITS)
    during: list[int] = []
    read = RecordReader.read

    def counting(reader: RecordReader, record: Record, latest: datetime | None) -> Item:
        during.append(turns())
        return read(reader, record, latest)

    monkeypatch.setattr(RecordReader, "read", counting)
    records = Records({topic: SeatAssigned.topic})
    async with counted_turns() as turns:
        await applier.apply([records.read(consumed) for consumed in batch])
    assert during[-1] - during[0] > 2


async def test_an_unreadable_record_is_found_though_kafka_answers_slowly(
    idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer takes longer than each partition is polled alone."""
    monkeypatch.setattr(polling_module, "UNREADABLE_SECONDS", 0.0)
    delay_fetches(monkeypatch, 0.4)
    bad, good = "A0", next(name for name in AGENCIES if partition(name) != partition("A0"))
    await put_unreadable(idle_probe, bad)
    await idle_probe.publish(seat(good, "quick"))
    keys: set[bytes | None] = set()
    async with polling(idle_probe, batch_records=10) as (poller, consumer), asyncio.timeout(30):
        while not (keys and poller.unreadable):
            keys |= {record.key for record in await poller.poll(consumer)}
    assert keys == {good.encode()}


@asynccontextmanager
async def wide_topic(probe: RunningService, partitions: int) -> AsyncIterator[str]:
    """A topic with this many partitions; its name, without the prefix."""
    name = f"{probe.topic_prefix}wide"
    async with connect(probe.runtime.kafka) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1)])
        yield "wide"
        await admin.delete_topics([name])


@asynccontextmanager
async def polling(
    probe: RunningService, batch_records: int, topic: str = SeatAssigned.topic, partitions: int = PARTITIONS
) -> AsyncIterator[tuple[Poller, AIOKafkaConsumer]]:
    """A poller, and its client of Kafka, which is assigned all partitions of a topic from their beginning."""
    kafka = AIOKafkaConsumer(bootstrap_servers=probe.runtime.settings.kafka_bootstrap, auto_offset_reset="earliest")
    await kafka.start()
    kafka.assign([TopicPartition(probe.topic_prefix + topic, number) for number in range(partitions)])
    progress = Progress(lambda: kafka, kafka, stuck_seconds=60)
    progress.begin(dict.fromkeys(kafka.assignment(), 0))
    database = probe.runtime.database
    applier = Applier(database, Subscriptions({}, service="probe", group="probe", clock=database.clock), LIMITS)
    paused = PausedPartitions(lambda: kafka, applier, Records({}), {})

    async def begins() -> dict[TopicPartition, int]:
        return {}

    async def step(_partition: TopicPartition, _offset: int) -> None:
        return None

    yield Poller(progress, paused, begins, step, batch_records), kafka
    await kafka.stop()
