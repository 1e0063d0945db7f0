"""The sandbox's clock moves instant by instant, waits for services that are down, and says which one holds it up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn
from aiokafka import AIOKafkaConsumer, TopicPartition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from muster_contracts import ClockMoved, topics
from muster_local.coordinator import ClockStuck, Coordinator
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics

START = datetime(2025, 8, 6, tzinfo=UTC)


class FakeService:
    """Follows the clock's topic as a process does, and handles at once what is due."""

    def __init__(self, bootstrap: str, topic_prefix: str, due: list[datetime]) -> None:
        self.handled: list[tuple[datetime, datetime]] = []  # due at, handled at
        self.outbox = 0
        self.latest: datetime | None = None
        self.now = datetime.now(UTC)
        self._due = sorted(due)
        self._partition = TopicPartition(topic_prefix + ClockMoved.topic, 0)
        self._bootstrap = bootstrap

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        app = Starlette(routes=[Route("/sandbox/state", self._state)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        consumer.assign([self._partition])
        tasks = [asyncio.create_task(server.serve(sockets=[listener])), asyncio.create_task(self._follow(consumer))]
        try:
            yield
        finally:
            server.should_exit = True
            tasks[1].cancel()
            await asyncio.wait(tasks)
            await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            self.now = ClockMoved.model_validate_json(record.value).now
            while self._due and self._due[0] <= self.now:
                self.handled.append((self._due.pop(0), self.now))

    async def _state(self, request: Request) -> JSONResponse:
        assert request.headers["authorization"] == "Bearer token"
        return JSONResponse(
            {
                "service": "fake",
                "instance": "fake-1",
                "now": self.now.isoformat(),
                "latest": self.latest.isoformat() if self.latest else None,
                "next_due": self._due[0].isoformat() if self._due else None,
                "outbox": self.outbox,
                "lag": 0,
                "activity": len(self.handled),
            }
        )


@pytest.fixture
async def prefix(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[str]:
    names = await create_topics(kafka_at(kafka_bootstrap), topic_prefix, [topics()[ClockMoved.topic]])
    yield topic_prefix
    await delete_topics(kafka_at(kafka_bootstrap), names)


def _listen() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def _coordinated(
    bootstrap: str, prefix: str, *services: FakeService, patience_seconds: float = 30
) -> AsyncIterator[Coordinator]:
    async with AsyncExitStack() as stack:
        urls = {}
        for number, service in enumerate(services):
            listener, urls[f"service-{number}"] = _listen()
            await stack.enter_async_context(service.serving(listener))
        coordinator = Coordinator(urls, kafka_at(bootstrap), prefix, "token", patience_seconds=patience_seconds)
        yield await stack.enter_async_context(coordinator)


async def test_every_due_instant_of_every_service_is_visited_in_order(kafka_bootstrap: str, prefix: str) -> None:
    hours = [START + timedelta(hours=hour) for hour in range(5)]
    one = FakeService(kafka_bootstrap, prefix, [hours[1], hours[3]])
    other = FakeService(kafka_bootstrap, prefix, [hours[2], hours[3]])
    visited: list[datetime] = []

    async def visit(now: datetime) -> None:
        visited.append(now)

    async with _coordinated(kafka_bootstrap, prefix, one, other) as coordinator:
        await coordinator.begin(START)
        await coordinator.advance(hours[4], visit)

    assert visited == hours
    assert one.handled == [(hours[1], hours[1]), (hours[3], hours[3])]
    assert other.handled == [(hours[2], hours[2]), (hours[3], hours[3])]


async def test_the_clock_stands_where_another_coordinator_has_moved_it(kafka_bootstrap: str, prefix: str) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    async with _coordinated(kafka_bootstrap, prefix, service) as coordinator:
        await coordinator.begin(START)
    async with _coordinated(kafka_bootstrap, prefix, FakeService(kafka_bootstrap, prefix, [])) as coordinator:
        assert coordinator.now == START
        with pytest.raises(ValueError, match="cannot go back"):
            await coordinator.advance(START - timedelta(seconds=1))


async def test_a_clock_that_was_never_moved_visits_every_due_instant_too(kafka_bootstrap: str, prefix: str) -> None:
    now = datetime.now(UTC)
    hours = [now + timedelta(hours=hour) for hour in range(1, 4)]
    service = FakeService(kafka_bootstrap, prefix, hours[:2])
    visited: list[datetime] = []

    async def visit(instant: datetime) -> None:
        visited.append(instant)

    async with _coordinated(kafka_bootstrap, prefix, service) as coordinator:
        await coordinator.advance(hours[2], visit)

    assert service.handled == [(hour, hour) for hour in hours[:2]]
    assert now <= visited[0] < hours[0]
    assert visited[1:] == hours


async def test_a_clock_that_was_never_moved_does_not_go_back(kafka_bootstrap: str, prefix: str) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    async with _coordinated(kafka_bootstrap, prefix, service) as coordinator:
        with pytest.raises(ValueError, match="cannot go back"):
            await coordinator.advance(START)
        assert coordinator.now is None


async def test_a_clock_begins_in_the_past_where_nothing_has_happened_and_only_there(
    kafka_bootstrap: str, prefix: str
) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    service.latest = START + timedelta(days=1)
    async with _coordinated(kafka_bootstrap, prefix, service) as coordinator:
        with pytest.raises(ValueError, match="it is 2025-08-07T00:00:00Z"):
            await coordinator.begin(START)
        service.latest = None
        await coordinator.begin(START)
        with pytest.raises(ValueError, match="cannot go back"):
            await coordinator.begin(START - timedelta(seconds=1))


async def test_a_coordinator_that_another_has_overtaken_does_not_turn_the_time_back(
    kafka_bootstrap: str, prefix: str
) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    async with _coordinated(kafka_bootstrap, prefix, service) as coordinator:
        await coordinator.begin(START)
        async with _coordinated(kafka_bootstrap, prefix, FakeService(kafka_bootstrap, prefix, [])) as other:
            await other.advance(START + timedelta(days=2))
        with pytest.raises(ValueError, match="cannot go back"):
            await coordinator.advance(START + timedelta(days=1))


async def test_the_clock_waits_for_a_service_that_is_down(kafka_bootstrap: str, prefix: str) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    listener, url = _listen()
    listener.close()
    async with Coordinator({"late": url}, kafka_at(kafka_bootstrap), prefix, "token") as coordinator:
        await coordinator.begin(START)
        moving = asyncio.create_task(coordinator.advance(START))
        port = int(url.rpartition(":")[2])
        async with service.serving(socket.create_server(("127.0.0.1", port))):
            await moving
    assert service.now == START


async def test_a_service_that_does_not_become_quiet_is_named(kafka_bootstrap: str, prefix: str) -> None:
    service = FakeService(kafka_bootstrap, prefix, [])
    service.outbox = 2
    async with _coordinated(kafka_bootstrap, prefix, service, patience_seconds=0.5) as coordinator:
        await coordinator.begin(START)
        with pytest.raises(ClockStuck, match="service-0: 2 rows wait in its outbox"):
            await coordinator.advance(START)
