"""Moves the sandbox's clock from instant to instant, and at each one waits until every service is quiet.

A move stops, in order, at every instant when something is due in any process. So causes precede their effects across
services, and nothing is handled late.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from muster_contracts import SERVICES, ClockMoved
from muster_local.stack import Stack
from muster_operator.output import in_utc
from muster_runtime.clock import SystemClock
from muster_runtime.messaging.client_closing import close_consumer
from muster_runtime.messaging.connection import KafkaConnection

# The first move sets the clock this far ahead of the present: until the processes receive it, their own clocks keep
# running, and no clock may go back.
_AHEAD = timedelta(seconds=1)

# How long to wait between sweeps. A sweep costs a tenth of a second of CPU time in total, so polling faster slows down
# the work that we wait for.
_PAUSE_SECONDS = 0.05

# How long to wait for quiet. A killed service is back within a few seconds and clears its backlog within a few more.
_PATIENCE_SECONDS = 120.0


class ClockStuck(Exception):
    """The services did not become quiet in time; the message names them and says why."""


class ProcessState(BaseModel):
    """A process's reply from `/sandbox/state`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    service: str
    instance: str
    now: AwareDatetime
    latest: AwareDatetime | None = None  # the instant of its latest transaction, ever
    next_due: AwareDatetime | None
    deadlines_held_since: AwareDatetime | None = None
    outbox: int
    lag: int
    activity: int

    def busy_with(self, instant: datetime) -> str | None:
        """Why the process is not quiet at `instant`; None if it is quiet."""
        if self.now != instant:
            return f"its clock says {shown(self.now)}"
        if self.next_due is not None and self.next_due <= instant:
            held = f", and its deadlines are held: muster deadlines release {self.service}"
            return f"something has been due since {shown(self.next_due)}{held if self.deadlines_held_since else ''}"
        if self.outbox:
            return f"{self.outbox} rows wait in its outbox"
        if self.lag:
            return f"it is {self.lag} records behind"
        return None


Sweep = Mapping[str, ProcessState | str]  # by service: its state, or the reason why it has none


class Coordinator:
    """Moves the clock of a running stack."""

    def __init__(
        self,
        urls: Mapping[str, str],
        kafka: KafkaConnection,
        topic_prefix: str,
        token: str,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._urls = {service: f"{url}/sandbox/state" for service, url in urls.items()}
        self._topic = topic_prefix + ClockMoved.topic
        self._kafka = kafka
        self._patience = patience_seconds
        self._producer = AIOKafkaProducer(**kafka.options(), acks="all")
        self._http = httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=10.0, trust_env=False)
        self._exit = AsyncExitStack()
        self.now: datetime | None = None

    @classmethod
    def of(cls, stack: Stack) -> Self:
        return cls(
            {service: stack.service_url(service) for service in SERVICES},
            stack.kafka,
            stack.topic_prefix,
            stack.token("sandbox:operate"),
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._http)
            opened.push_async_callback(self._producer.stop)
            await self._producer.start()
            self.now = await self._last_move()
            self._exit = opened.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def begin(self, at: datetime) -> None:
        """Set the clock of a new stack to `at`, which may be in the past.

        Raises ValueError if the clock or a transaction is already later than `at`.
        """
        sweep = await self.sweep()
        dated = [state.latest for state in sweep.values() if isinstance(state, ProcessState) and state.latest]
        latest = max([*dated, *([self.now] if self.now else [])], default=at)
        if latest > at:
            raise ValueError(f"the clock cannot go back: it is {shown(latest)}, and {shown(at)} is in the past")
        await self._move(at)

    async def advance(
        self,
        target: datetime,
        on_instant: Callable[[datetime], Awaitable[None]] | None = None,
    ) -> None:
        """Move to `target`, stopping at every instant when something is due.

        Calls `on_instant` at each stop once every service is quiet. A clock that was never moved stops first at the
        present. Raises ValueError if time would go back, and ClockStuck if the services do not become quiet.
        """
        self.now = await self._last_move()  # another coordinator may have moved it
        present = self.now or SystemClock().now()
        if target < present:
            raise ValueError(f"the clock cannot go back: it is {shown(present)}, and {shown(target)} is in the past")
        if self.now is None:
            await self._move(min(present + _AHEAD, target))
        while True:
            next_due = await self.settle()
            if on_instant is not None and self.now is not None:
                await on_instant(self.now)
            if self.now == target:
                return
            await self._move(min(next_due or target, target))

    async def settle(self) -> datetime | None:
        """Wait until every service is quiet at the current instant; return the next due instant. Raises ClockStuck."""
        give_up_at = time.monotonic() + self._patience
        before: Sweep | None = None
        while True:
            sweep = await self.sweep()
            busy = _busy_with(sweep, self.now)
            if not busy and sweep == before:
                return min(
                    (s.next_due for s in sweep.values() if isinstance(s, ProcessState) and s.next_due),
                    default=None,
                )
            if time.monotonic() > give_up_at:
                raise ClockStuck(
                    f"not quiet at {shown(self.now)} after {self._patience:.0f} s: "
                    + "; ".join(f"{service}: {why}" for service, why in (busy or {"all": "not quiet"}).items())
                )
            before = None if busy else sweep
            if busy:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def sweep(self) -> Sweep:
        """Every process's state, requested concurrently, or the reason why it does not answer."""
        states = await asyncio.gather(*(self._state(url) for url in self._urls.values()))
        return dict(zip(self._urls, states, strict=True))

    async def _state(self, url: str) -> ProcessState | str:
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            return ProcessState.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            return f"not answering ({type(error).__name__}: {error})"

    async def _move(self, instant: datetime) -> None:
        await self._producer.send_and_wait(
            self._topic,
            ClockMoved(now=instant).model_dump_json().encode(),
            headers=[("ce_type", ClockMoved.event_type.encode())],
        )
        self.now = instant

    async def _last_move(self) -> datetime | None:
        partition = TopicPartition(self._topic, 0)
        consumer = AIOKafkaConsumer(**self._kafka.options(), enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            if end == 0:
                return None
            consumer.seek(partition, end - 1)
            record = await consumer.getone()
            return ClockMoved.model_validate_json(record.value or b"").now
        finally:
            await close_consumer(consumer)


def _busy_with(sweep: Sweep, instant: datetime | None) -> dict[str, str]:
    reasons = {
        service: state if isinstance(state, str) else state.busy_with(instant or state.now)
        for service, state in sweep.items()
    }
    return {service: reason for service, reason in reasons.items() if reason}


def shown(instant: datetime | None) -> str:
    """An instant in RFC 3339, in UTC."""
    return "the machine's time" if instant is None else in_utc(instant)
