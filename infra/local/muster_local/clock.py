"""Moving the sandbox's clock: one instant after another, and at each of them until all is quiet.

A move visits, in order, every instant at which something is due in any process. So cause stays before effect
across services, and nothing is handled late.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import httpx
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table

from muster_contracts import ClockMoved
from muster_local.programs import SERVICES
from muster_local.stack import DEFAULT_HOME, Stack
from muster_runtime.clock import SystemClock

# A sweep costs the four services a few milliseconds; asking more often would only slow down what is awaited.
_PAUSE_SECONDS = 0.004

# A service that was killed is back within a few seconds; its backlog is worked off within a few more.
_PATIENCE_SECONDS = 120.0


class ClockStuck(Exception):
    """The services did not become quiet in time; the message says which, and why."""


class ProcessState(BaseModel):
    """What a process says of itself at `/sandbox/state`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    service: str
    instance: str
    now: AwareDatetime
    next_due: AwareDatetime | None
    outbox: int
    lag: int
    activity: int

    def unrest(self, instant: datetime) -> str | None:
        """Why the process is not quiet at `instant`; None when it is."""
        if self.now != instant:
            return f"its clock says {_text(self.now)}"
        if self.next_due is not None and self.next_due <= instant:
            return f"something is due since {_text(self.next_due)}"
        if self.outbox:
            return f"{self.outbox} rows wait in its outbox"
        if self.lag:
            return f"it is {self.lag} records behind"
        return None


Sweep = Mapping[str, ProcessState | str]  # by service: its state, or why there is none


class Coordinator:
    """Moves the clock of a running stack."""

    def __init__(
        self,
        urls: Mapping[str, str],
        bootstrap: str,
        topic_prefix: str,
        token: str,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._urls = {service: f"{url}/sandbox/state" for service, url in urls.items()}
        self._topic = topic_prefix + ClockMoved.topic
        self._bootstrap = bootstrap
        self._patience = patience_seconds
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._http = httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=10.0, trust_env=False)
        self._exit = AsyncExitStack()
        self.now: datetime | None = None

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """The coordinator of a running stack."""
        return cls(
            {service: stack.service_url(service) for service in SERVICES},
            stack.bootstrap,
            stack.topic_prefix,
            stack.token("sandbox:operate"),
        )

    async def __aenter__(self) -> Self:
        await self._exit.enter_async_context(self._http)
        await self._producer.start()
        self._exit.push_async_callback(self._producer.stop)
        self.now = await self._last_move()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def advance(
        self,
        target: datetime,
        on_instant: Callable[[datetime], Awaitable[None]] | None = None,
    ) -> None:
        """Move to `target` by way of every instant at which something is due.

        `on_instant` is called at each of them once all is quiet. A clock that was never moved is put to `target`
        at once, from where it then stands; after that, time does not go back (ValueError).
        Raises ClockStuck when the services do not become quiet.
        """
        if self.now is None:
            await self._move(target)
        if self.now is not None and target < self.now:
            raise ValueError(f"time does not go back: it is {_text(self.now)}, not yet {_text(target)}")
        while True:
            next_due = await self.settle()
            if on_instant is not None and self.now is not None:
                await on_instant(self.now)
            if self.now == target:
                return
            await self._move(min(next_due or target, target))

    async def settle(self) -> datetime | None:
        """Wait until all is quiet at the present instant, and say when something is next due."""
        give_up_at = time.monotonic() + self._patience
        before: Sweep | None = None
        while True:
            sweep = await self.sweep()
            unrest = _unrest(sweep, self.now)
            if not unrest and sweep == before:
                return min(
                    (s.next_due for s in sweep.values() if isinstance(s, ProcessState) and s.next_due),
                    default=None,
                )
            if time.monotonic() > give_up_at:
                raise ClockStuck(
                    f"not quiet at {_text(self.now)} after {self._patience:.0f} s: "
                    + "; ".join(f"{service}: {why}" for service, why in (unrest or {"all": "restless"}).items())
                )
            before = None if unrest else sweep
            if unrest:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def sweep(self) -> Sweep:
        """Every process's state, asked for at once; for one that does not answer, why."""
        states = await asyncio.gather(*(self._state(url) for url in self._urls.values()))
        return dict(zip(self._urls, states, strict=True))

    async def _state(self, url: str) -> ProcessState | str:
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            return ProcessState.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            return f"it does not answer ({type(error).__name__}: {error})"

    async def _move(self, instant: datetime) -> None:
        await self._producer.send_and_wait(
            self._topic,
            ClockMoved(now=instant).model_dump_json().encode(),
            headers=[("ce_type", ClockMoved.event_type.encode())],
        )
        self.now = instant

    async def _last_move(self) -> datetime | None:
        partition = TopicPartition(self._topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            if end == 0:
                return None
            consumer.seek(partition, end - 1)
            record = await consumer.getone()
            return ClockMoved.model_validate_json(record.value or b"").now
        finally:
            await consumer.stop()


def _unrest(sweep: Sweep, instant: datetime | None) -> dict[str, str]:
    reasons = {
        service: state if isinstance(state, str) else state.unrest(instant or state.now)
        for service, state in sweep.items()
    }
    return {service: reason for service, reason in reasons.items() if reason}


def _text(instant: datetime | None) -> str:
    return "the machine's time" if instant is None else instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


app = typer.Typer(help="Show or move the sandbox's clock.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="The stack's folder.")]


@app.command()
def show(home: Home = DEFAULT_HOME) -> None:
    """Show the time in each process, and what is due next."""
    asyncio.run(_show(home))


async def _show(home: Path) -> None:
    async with Coordinator.of(_running(home)) as coordinator:
        sweep = await coordinator.sweep()
        table = Table("service", "now", "next due", "quiet")
        for service, state in sweep.items():
            if isinstance(state, str):
                table.add_row(service, "–", "–", state)
            else:
                due = _text(state.next_due) if state.next_due else "nothing"
                table.add_row(service, _text(state.now), due, state.unrest(coordinator.now or state.now) or "yes")
        Console().print(table)


@app.command()
def advance(
    to: Annotated[str | None, typer.Option("--to", help="An instant, such as 2025-10-05T00:00:00Z.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="A duration, such as 90s, 12h, 30d or 2w.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Move the clock by way of every instant at which something is due."""
    if (to is None) == (by is None):
        raise typer.BadParameter("give either --to or --by")
    asyncio.run(_advance(home, parse_instant(to) if to is not None else None, parse_duration(by or "0s")))


async def _advance(home: Path, to: datetime | None, by: timedelta) -> None:
    console = Console()

    async def tell(instant: datetime) -> None:
        console.print(_text(instant))

    async with Coordinator.of(_running(home)) as coordinator:
        try:
            await coordinator.advance(to or (coordinator.now or SystemClock().now()) + by, tell)
        except (ClockStuck, ValueError) as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from None


def _running(home: Path) -> Stack:
    stack = Stack.running(home)
    if stack is None:
        raise typer.BadParameter(f"no stack runs in {home}; start one with: muster up --home {home}")
    return stack


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> timedelta:
    """A duration such as 90s, 12h, 30d or 2w."""
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if not match:
        raise typer.BadParameter(f"{text!r} is not a whole number with one of s, m, h, d, w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_instant(text: str) -> datetime:
    """An instant in RFC 3339 with its offset."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an instant such as 2025-10-05T00:00:00Z") from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no offset; end it with Z for UTC")
    return instant.astimezone(UTC)
