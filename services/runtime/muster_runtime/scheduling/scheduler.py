"""The scheduler: sleeps until the next deadline is due, then calls its handler under the agency's lock.

Several processes may run it at once: the lock and the delete let only one of them handle a deadline.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

import asyncpg
import structlog
from structlog.contextvars import bound_contextvars

from muster_runtime.canceling import run_together
from muster_runtime.clock import Clock
from muster_runtime.context import Context, new_context
from muster_runtime.database import locks
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import MISFITS, ONE_AGENCYS, RETRYABLE, Database, UnitOfWork
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.errors import describe
from muster_runtime.messaging.breaker import BreakerOpen
from muster_runtime.observability import tracing
from muster_runtime.observability.telemetry import DEADLINE_LATENESS_SECONDS, HANDLER_SECONDS
from muster_runtime.scheduling import deadlines, hold
from muster_runtime.scheduling.deadlines import Deadline, DeadlineHandler
from muster_runtime.scheduling.news import LATE, IntakeNews, News

# How long to wait before retrying an agency whose lock was not free in its turn, or whose failing deadline the breaker
# keeps from being parked.
RETRY_SECONDS = 5.0

# The same for an agency whose deadlines wait for news, or for the turn of its lock.
POSTPONE_SECONDS = 0.5

# While the scheduler waits for one agency's lock, it handles no other agency. So the wait is short, and after so many
# locks that are held for longer, the round ends.
_BRIEFLY = replace(LOCK, patience_seconds=0.1)
LOCKED_AGENCIES = 5

_log = structlog.get_logger(__name__)


class Scheduler:
    """Handles one service's deadlines. `waiting` maps agencies whose deadlines wait for news to what they wait for."""

    def __init__(
        self,
        database: Database,
        wakeup: Wakeup,
        clock: Clock,
        handlers: Mapping[str, DeadlineHandler],
        service: str,
        news: News,
        parked: int,
        intake_news: IntakeNews | None = None,
    ) -> None:
        """`parked` is how many deadlines may be parked within the breaker's window.

        Beyond that, failing ones are retried.
        """
        self._database = database
        self._wakeup = wakeup
        self._clock = clock
        self._handlers = handlers
        self._order = {kind: place for place, kind in enumerate(handlers)}
        self._service = service
        # Each starts at zero, so that the alert sees the first late one.
        self._lateness = {kind: DEADLINE_LATENESS_SECONDS.labels(service, kind) for kind in handlers}
        self._parked = parked
        self._news = news
        self._intake_news = intake_news
        self._now = clock.now()  # when it last looked for due deadlines
        self._reported: Collection[str] = ()  # agencies whose deadlines of an intake's kinds could be handled then
        self._unread: Mapping[str, str] = {}  # agencies all of whose deadlines wait, and for what
        self._postponed_until: dict[str, float] = {}
        self._turn = ""  # the agency whose lock is waited for, or was last
        self._has_turn = asyncio.Event()
        self.waiting: Mapping[str, str] = {}
        self.handled = 0

    async def run(self) -> None:
        """Handle due deadlines until canceled."""
        intake_news = [self._intake_news.run()] if self._intake_news else []
        await run_together(self._handle_all(), self._take_turns(), self._news.run(), *intake_news)

    async def _handle_all(self) -> None:
        while True:
            try:
                if await self._are_facts_in_doubt():
                    self.waiting = {}
                    await self._wakeup.wait()
                elif not await self._handle_due():
                    await self._wakeup.wait(await next_due_of(self._database))
            except RETRYABLE as error:
                _log.warning("scheduler_retried", error=repr(error))
                await asyncio.sleep(0.5)

    async def _are_facts_in_doubt(self) -> bool:
        async with self._database.connection() as connection:
            return await hold.are_facts_in_doubt(connection)

    async def _handle_due(self) -> bool:
        """Handle each agency's earliest due instant. Returns False if there is nothing to handle."""
        postponed = [agency_id for agency_id, until in self._postponed_until.items() if until > time.monotonic()]
        now = self._clock.now()
        reported, unreported = await self._find_reported(now)
        async with self._database.connection() as connection:
            kinds = self._kinds_of_intake
            agencies = await deadlines.due_agencies(
                connection, now, late_before=now - LATE, without=postponed, kinds=kinds, of_kinds=list(reported)
            )
            free = await locks.free(connection, agencies) if agencies else set()
        unread = await self._news.unread(agencies)
        self._now, self._reported = now, reported
        locked: list[str] = []
        for agency_id in sorted(agencies, key=lambda agency_id: agency_id not in free):  # held locks last
            lock = LOCK if agency_id in free else _BRIEFLY
            if agency_id in unread:
                self._postpone(agency_id, POSTPONE_SECONDS)
            elif len(locked) >= LOCKED_AGENCIES or not await self._handle_agency(agency_id, lock):
                self._postpone(agency_id, POSTPONE_SECONDS)
                locked.append(agency_id)
        if locked and not self._has_turn.is_set():
            # The agencies take turns in the order of their IDs.
            self._turn = min(locked, key=lambda agency_id: (agency_id <= self._turn, agency_id))
            self._has_turn.set()
        self._unread = {agency_id: why for agency_id, why in self._unread.items() if agency_id in postponed} | unread
        self.waiting = unreported | self._unread
        if not agencies and self._intake_news and unreported:
            await self._intake_news.wait(POSTPONE_SECONDS)
        elif not agencies and postponed:
            await asyncio.sleep(POSTPONE_SECONDS)
        return bool(agencies)

    @property
    def _kinds_of_intake(self) -> Sequence[str]:
        return self._intake_news.kinds if self._intake_news else ()

    async def _find_reported(self, now: datetime) -> tuple[Collection[str], dict[str, str]]:
        """The agencies whose due deadlines of the intake's kinds can be handled, and why those of the others wait.

        Once the intake has been read, the deadlines may be late, so they also wait for the news that late deadlines
        wait for. Deadlines of other kinds do not wait for the intake.
        """
        if self._intake_news is None:
            return (), {}
        async with self._database.connection() as connection:
            due = await deadlines.due_of_kinds(connection, self._kinds_of_intake, now)
        waiting = await self._intake_news.unread({agency_id: last for agency_id, (_, last) in due.items()})
        rest = {agency_id: first for agency_id, (first, _) in due.items() if agency_id not in waiting}
        waiting |= await self._news.unread(rest)
        return due.keys() - waiting.keys(), waiting

    async def _take_turns(self) -> None:
        """Wait longer for one lock after another that is held elsewhere, while the other agencies are handled.

        A busy agency's transactions take its lock from one another, so it is never free, and only a long wait gets it.
        """
        while True:
            await self._has_turn.wait()
            try:
                await self._handle_agency(self._turn, LOCK)
            except RETRYABLE as error:
                _log.warning("scheduler_retried", error=repr(error))
            self._has_turn.clear()

    def _postpone(self, agency_id: str, seconds: float) -> None:
        self._postponed_until[agency_id] = time.monotonic() + seconds

    async def _handle_agency(self, agency_id: str, lock: Lock) -> bool:
        """Handle all deadlines of an agency's earliest due instant together, or one by one if that fails.

        Returns False if its lock is held elsewhere, and the agency should have a turn.
        """
        try:
            async with self._database.connection() as connection:
                without = () if agency_id in self._reported else self._kinds_of_intake
                due = await deadlines.due_first(connection, agency_id, self._now, without_kinds=without)
            due.sort(key=self._place)
            try:
                await self._handle(agency_id, due, lock)
            except RETRYABLE:
                raise
            except Exception:
                await self._handle_singly(agency_id, due, lock)
            self._postponed_until.pop(agency_id, None)
        except (*ONE_AGENCYS, *MISFITS, BreakerOpen) as error:
            if lock is _BRIEFLY and isinstance(error, asyncpg.LockNotAvailableError):
                return False
            self._postpone(agency_id, RETRY_SECONDS)
            _log.error("deadline_failed", agency_id=agency_id, exc_info=error)
        return True

    async def _handle_singly(self, agency_id: str, due: Sequence[Deadline], lock: Lock) -> None:
        """Handle each deadline in its own transaction, and park any that fails, so that it delays no other."""
        for deadline in due:
            try:
                async with self._database.blaming_schema():
                    await self._handle(agency_id, [deadline], lock)
            except RETRYABLE:
                raise
            except Exception as error:
                async with self._database.write(agency_id, context=self._context(), lock=lock) as uow:
                    await deadlines.park(uow, deadline, describe(error), self._parked)
                _log.error(
                    "deadline_parked",
                    kind=deadline.kind,
                    agency_id=agency_id,
                    subject=deadline.subject,
                    due_at=deadline.due_at.isoformat(),
                    exc_info=error,
                )

    async def _handle(self, agency_id: str, due: Sequence[Deadline], lock: Lock) -> None:
        """Handle deadlines of one agency in one transaction, in the order of `due`: the service's order of kinds.

        The rows of a kind are deleted only at its turn, so the handlers of earlier kinds see what is still to come.
        """
        context = self._context()
        taken: list[Deadline] = []
        with tracing.deadlines(agency_id, [deadline.kind for deadline in due]):
            async with self._database.write(agency_id, context=context, lock=lock) as uow:
                with bound_contextvars(correlation_id=context.correlation_id):
                    for _, group in groupby(due, key=lambda deadline: deadline.kind):
                        found = await deadlines.take(uow, list(group))  # except those that another process has handled
                        found.sort(key=self._place)
                        await handle(uow, self._handlers, found, self._service)
                        taken += found
        for deadline in taken:
            lateness = (uow.now - deadline.due_at).total_seconds()
            self._lateness[deadline.kind].observe(lateness)
        self.handled += len(taken)

    def _context(self) -> Context:
        return new_context(self._service, self._clock.now())

    def _place(self, deadline: Deadline) -> tuple[int, str]:
        """The sort key: kinds due at the same instant are handled in the order of `handlers`."""
        return self._order.get(deadline.kind, len(self._order)), deadline.subject


async def handle(
    uow: UnitOfWork, handlers: Mapping[str, DeadlineHandler], due: Sequence[Deadline], service: str
) -> None:
    """Call the handlers of taken deadlines, once per kind. Raises LookupError for an unknown kind."""
    for kind, group in groupby(due, key=lambda deadline: deadline.kind):
        if kind not in handlers:
            raise LookupError(f"{service} has no handler for deadlines of the kind {kind!r}")
        with HANDLER_SECONDS.labels(service, kind).time():
            await handlers[kind](uow, list(group))


async def next_due_of(database: Database) -> datetime | None:
    """The earliest due instant, on a connection of the database's pool."""
    async with database.connection() as connection:
        return await deadlines.next_due(connection)
