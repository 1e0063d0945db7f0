"""The scheduler: sleeps until the next deadline is due and has it handled under its agency's lock.

Several processes may run it at once: the lock and the delete let only one handle a deadline.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import groupby

import structlog
from structlog.contextvars import bound_contextvars

from muster_runtime.alarm import Alarm
from muster_runtime.clock import Clock
from muster_runtime.context import Context
from muster_runtime.db import RETRYABLE, Connection, Database, concerns_all
from muster_runtime.deadlines import Deadline, DeadlineHandler
from muster_runtime.identifiers import new_id
from muster_runtime.telemetry import DEADLINE_LATENESS_SECONDS, HANDLER_SECONDS

# An agency whose deadline cannot be handled is tried again after so many seconds; the others go on.
RETRY_SECONDS = 5.0

_log = structlog.get_logger(__name__)


async def next_due(connection: Connection) -> datetime | None:
    """The earliest instant at which a deadline of this service is due."""
    instant: datetime | None = await connection.fetchval("select min(due_at) from deadline")
    return instant


class Scheduler:
    """Handles the deadlines of one service."""

    def __init__(
        self,
        database: Database,
        alarm: Alarm,
        clock: Clock,
        handlers: Mapping[str, DeadlineHandler],
        service: str,
    ) -> None:
        self._database = database
        self._alarm = alarm
        self._clock = clock
        self._handlers = handlers
        self._order = {kind: place for place, kind in enumerate(handlers)}
        self._service = service
        self._held_until: dict[str, float] = {}
        self.handled = 0

    async def run(self) -> None:
        """Handle what is due until cancelled."""
        while True:
            try:
                if not await self._handle_due():
                    await self._alarm.wait(await next_due_of(self._database))
            except RETRYABLE as error:
                _log.warning("scheduler_retried", error=repr(error))
                await asyncio.sleep(0.5)

    async def _handle_due(self) -> bool:
        """Handle the earliest due instant of each agency; False when nothing could be handled."""
        time = asyncio.get_running_loop().time()
        held = [agency_id for agency_id, until in self._held_until.items() if until > time]
        agencies = await self._database.pool.fetch(
            """
            select agency_id
            from deadline
            where due_at <= $1 and agency_id <> all($2::text[])
            group by agency_id
            order by min(due_at), agency_id
            limit 100
            """,
            self._clock.now(),
            held,
        )
        for row in agencies:
            await self._handle_agency(row["agency_id"])
        if not agencies and held:
            await asyncio.sleep(0.5)
        return bool(agencies)

    async def _handle_agency(self, agency_id: str) -> None:
        try:
            await self._handle_instant(agency_id)
            self._held_until.pop(agency_id, None)
        except Exception as error:
            if concerns_all(error):
                raise
            self._held_until[agency_id] = asyncio.get_running_loop().time() + RETRY_SECONDS
            _log.error("deadline_failed", agency_id=agency_id, exc_info=error)

    async def _handle_instant(self, agency_id: str) -> None:
        """One transaction: all of an agency that is due at its earliest instant."""
        context = Context(actor=self._service, correlation_id=new_id("cor", self._clock.now()))
        async with self._database.write(agency_id, context=context) as uow:
            rows = await uow.connection.fetch(
                """
                delete from deadline
                where
                    agency_id = $1
                    and due_at = (
                        select min(due_at) from deadline where agency_id = $1 and due_at <= $2
                    )
                returning kind, agency_id, subject, due_at
                """,
                agency_id,
                uow.now,
            )
            due = sorted((Deadline(**row) for row in rows), key=self._place)
            for kind, group in groupby(due, key=lambda deadline: deadline.kind):
                with HANDLER_SECONDS.labels(self._service, kind).time(), _logged_as(context):
                    await self._handlers[kind](uow, list(group))
        for deadline in due:
            lateness = (uow.now - deadline.due_at).total_seconds()
            DEADLINE_LATENESS_SECONDS.labels(self._service, deadline.kind).observe(lateness)
        self.handled += len(due)

    def _place(self, deadline: Deadline) -> tuple[int, str]:
        """Kinds due at one instant are handled in the order of the service's table."""
        return self._order.get(deadline.kind, len(self._order)), deadline.subject


def _logged_as(context: Context) -> AbstractContextManager[object]:
    return bound_contextvars(correlation_id=context.correlation_id)


async def next_due_of(database: Database) -> datetime | None:
    """The earliest due instant, on a connection of the database's pool."""
    async with database.pool.acquire() as connection:
        return await next_due(connection)
