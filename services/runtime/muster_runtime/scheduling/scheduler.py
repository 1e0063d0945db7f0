"""The scheduler: sleeps until the next deadline is due, then calls its handler under the agency's lock.

Several processes may run it at once: the lock and the delete let only one of them handle a deadline.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby

import structlog
from structlog.contextvars import bound_contextvars

from muster_runtime.clock import Clock
from muster_runtime.context import Context
from muster_runtime.database.transactions import MISFITS, ONE_AGENCYS, RETRYABLE, Database, UnitOfWork
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.errors import describe
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.breaker import BreakerOpen
from muster_runtime.observability import tracing
from muster_runtime.observability.telemetry import DEADLINE_LATENESS_SECONDS, HANDLER_SECONDS
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline, DeadlineHandler
from muster_runtime.scheduling.news import News

# How long to wait before retrying an agency that is locked elsewhere, or whose failing deadline the breaker keeps from
# being parked.
RETRY_SECONDS = 5.0

# The same for an agency whose deadlines wait for news.
NEWS_SECONDS = 0.5

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
        news: News | None = None,
        parked: int = 50,
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
        self._parked = parked
        self._news = news
        self._held_until: dict[str, float] = {}
        self.waiting: Mapping[str, str] = {}
        self.handled = 0

    async def run(self) -> None:
        """Handle due deadlines until canceled."""
        while True:
            try:
                if not await self._handle_due():
                    await self._wakeup.wait(await next_due_of(self._database))
            except RETRYABLE as error:
                _log.warning("scheduler_retried", error=repr(error))
                await asyncio.sleep(0.5)

    async def _handle_due(self) -> bool:
        """Handle each agency's earliest due instant. Returns False if there is nothing to handle."""
        time = asyncio.get_running_loop().time()
        held = [agency_id for agency_id, until in self._held_until.items() if until > time]
        async with self._database.connection() as connection:
            agencies = await deadlines.due_agencies(connection, self._clock.now(), without=held)
        unread = await self._news.unread(agencies) if self._news else {}
        for agency_id in agencies:
            if agency_id in unread:
                self._held_until[agency_id] = time + NEWS_SECONDS
            else:
                await self._handle_agency(agency_id)
        self.waiting = {agency_id: why for agency_id, why in self.waiting.items() if agency_id in held} | unread
        if not agencies and held:
            await asyncio.sleep(NEWS_SECONDS)
        return bool(agencies)

    async def _handle_agency(self, agency_id: str) -> None:
        """Handle all deadlines of an agency's earliest due instant together, or one by one if that fails."""
        try:
            async with self._database.connection() as connection:
                due = await deadlines.due_first(connection, agency_id, self._clock.now())
            due.sort(key=self._place)
            try:
                await self._handle(agency_id, due)
            except RETRYABLE:
                raise
            except Exception:
                await self._handle_singly(agency_id, due)
            self._held_until.pop(agency_id, None)
        except (*ONE_AGENCYS, *MISFITS, BreakerOpen) as error:
            self._held_until[agency_id] = asyncio.get_running_loop().time() + RETRY_SECONDS
            _log.error("deadline_failed", agency_id=agency_id, exc_info=error)

    async def _handle_singly(self, agency_id: str, due: Sequence[Deadline]) -> None:
        """Handle each deadline in its own transaction, and park any that fails, so that it delays no other."""
        for deadline in due:
            try:
                async with self._database.blaming_schema():
                    await self._handle(agency_id, [deadline])
            except RETRYABLE:
                raise
            except Exception as error:
                async with self._database.write(agency_id, context=self._context()) as uow:
                    await deadlines.park(uow, deadline, describe(error), self._parked)
                _log.error(
                    "deadline_parked",
                    kind=deadline.kind,
                    agency_id=agency_id,
                    subject=deadline.subject,
                    due_at=deadline.due_at.isoformat(),
                    exc_info=error,
                )

    async def _handle(self, agency_id: str, due: Sequence[Deadline]) -> None:
        """Handle deadlines of one agency in one transaction, in the order of `due`: the service's order of kinds.

        The rows of a kind are deleted only at its turn, so the handlers of earlier kinds see what is still to come.
        """
        context = self._context()
        taken: list[Deadline] = []
        with tracing.deadlines(agency_id, [deadline.kind for deadline in due]):
            async with self._database.write(agency_id, context=context) as uow:
                with bound_contextvars(correlation_id=context.correlation_id):
                    for _, group in groupby(due, key=lambda deadline: deadline.kind):
                        found = await deadlines.take(uow, list(group))  # except those that another process has handled
                        found.sort(key=self._place)
                        await handle(uow, self._handlers, found, self._service)
                        taken += found
        for deadline in taken:
            lateness = (uow.now - deadline.due_at).total_seconds()
            DEADLINE_LATENESS_SECONDS.labels(self._service, deadline.kind).observe(lateness)
        self.handled += len(taken)

    def _context(self) -> Context:
        return Context(actor=self._service, correlation_id=new_id("cor", self._clock.now()))

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
