"""The sealer: seals every agency's audit rows once a minute, so that no command has to.

Several processes may run it at once: an agency's lock lets one of them seal.
"""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from muster_contracts import Event
from muster_runtime.clock import Clock
from muster_runtime.context import new_context
from muster_runtime.database.locks import LOCK
from muster_runtime.database.transactions import ONE_AGENCYS, RETRYABLE, Database, concerns_all
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.observability import seals

# How long to wait for an agency's lock, less than commands do. If it is held longer, the agency is skipped until the
# next round.
PATIENCE_SECONDS = 0.1

# How long to wait before another round for skipped agencies, or after an error.
_RETRY_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Sealer:
    """Seals one service's audit trail in rounds. A seal is published as an event of `event_class`.

    `failed` are the agencies whose rows could not be sealed in the last round, for example because of a date that no
    program can read. They are tried again in each round.
    """

    def __init__(
        self,
        database: Database,
        wakeup: Wakeup,
        clock: Clock,
        service: str,
        event_class: type[Event],
        period: timedelta,
    ) -> None:
        self._database = database
        self._wakeup = wakeup
        self._clock = clock
        self._service = service
        self._event_class = event_class
        self._period = period
        self._lock = replace(LOCK, patience_seconds=PATIENCE_SECONDS)
        self._sealed_at = clock.now()
        self.failed: set[str] = set()

    @property
    def due_since(self) -> datetime | None:
        """The instant of the round that is due or in progress; None if no round is due.

        A sandbox's clock waits for the round, but does not stop at it: that would double its stops.
        """
        next_round = self._sealed_at + self._period
        now = self._clock.now()
        return None if self._sealed_at <= now < next_round else min(now, next_round)  # the clock may be set back

    async def run(self) -> None:
        """Seal once in each period until canceled."""
        while True:
            while self.due_since is None:
                await self._wakeup.wait(self._sealed_at + self._period)
            started_at = self._clock.now()
            try:
                passed_over = await self.seal_all()
            except RETRYABLE as error:
                _log.warning("sealer_retried", error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if passed_over:
                _log.info("seal_postponed", agencies=passed_over)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._sealed_at = started_at

    async def seal_all(self) -> list[str]:
        """Seal all unsealed rows. Returns the agencies that were skipped because their locks are held."""
        async with self._database.connection() as connection:
            agencies = await seals.unsealed_agencies(connection)
        self.failed &= agencies.keys()
        return [agency_id for agency_id in agencies if not await self._seal(agency_id)]

    async def _seal(self, agency_id: str) -> bool:
        """Seal an agency's rows. Returns False if its lock is held."""
        try:
            await self._seal_rows(agency_id)
        except ONE_AGENCYS:
            return False
        except Exception as error:
            if concerns_all(error):
                raise
            self.failed.add(agency_id)
            _log.error("seal_failed", agency_id=agency_id, exc_info=error)
        else:
            self.failed.discard(agency_id)
        return True

    async def _seal_rows(self, agency_id: str) -> None:
        """Seal an agency's rows, with a transaction for each seal."""
        context = new_context(self._service, self._clock.now())
        count = seals.SEAL_ROWS
        while count == seals.SEAL_ROWS:
            async with self._database.write(agency_id, context=context, lock=self._lock) as uow:
                made = await seals.seal(uow, agency_id, self._service, self._event_class)
            count = made.count if made else 0
