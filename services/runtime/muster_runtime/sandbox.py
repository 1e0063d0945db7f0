"""The sandbox's clock across processes: each move is a record that every process follows.

In production, the routes do not exist and the topic is not read.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from fastapi import APIRouter

from muster_contracts import ClockMoved, faults
from muster_runtime.clock import SandboxClock
from muster_runtime.http.auth import requires_program
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.client_internals import enable_rebootstrap
from muster_runtime.messaging.connection import KafkaConnection

_log = structlog.get_logger(__name__)


class ClockFollower:
    """Moves this process's clock as the topic says, but never back."""

    def __init__(self, kafka: KafkaConnection, topic_prefix: str, clock: SandboxClock) -> None:
        self._clock = clock
        self._moved_to: datetime | None = None
        self._partition = TopicPartition(topic_prefix + ClockMoved.topic, 0)
        self._consumer = AIOKafkaConsumer(**kafka.options(), group_id=None, enable_auto_commit=False)
        enable_rebootstrap(self._consumer)

    async def start(self) -> None:
        """Move the clock to its last move before anything else in the process runs."""
        await self._consumer.start()
        self._consumer.assign([self._partition])
        (end,) = (await self._consumer.end_offsets([self._partition])).values()
        for offset in range(end - 1, -1, -1):  # the last readable one
            self._consumer.seek(self._partition, offset)
            if self._move(await self._consumer.getone()):
                break
        self._consumer.seek(self._partition, end)

    async def run(self) -> None:
        """Follow further moves until canceled."""
        async for record in self._consumer:
            self._move(record)

    async def stop(self) -> None:
        """Stop reading."""
        await close_consumer(self._consumer)

    def _move(self, record: Any) -> bool:
        """Move the clock to a record's instant; returns False if the record is unreadable."""
        try:
            now = ClockMoved.model_validate_json(record.value).now
        except Exception as error:  # one record must never stop a process
            _log.error("clock_move_unreadable", offset=record.offset, reason=faults(error))
            return False
        if self._moved_to is not None and now < self._moved_to:
            _log.warning("clock_not_moved_back", now=now.isoformat(), stands_at=self._moved_to.isoformat())
            return True
        self._moved_to = now
        self._clock.move(now)
        _log.debug("clock_moved", now=now.isoformat())
        return True


def sandbox_router(state: Callable[[], Awaitable[dict[str, object]]]) -> APIRouter:
    """The route that shows the clock's coordinator whether this process is quiet."""
    router = APIRouter(prefix="/sandbox", include_in_schema=False)

    @router.get("/state", dependencies=[requires_program("sandbox:operate")])
    async def show_state() -> dict[str, object]:
        return await state()

    return router
