"""The worker that processes seat files: one chunk of each agency in turn, so that no agency waits for another."""

import asyncio

import structlog

from muster_entitlements.domain.people import Directory
from muster_entitlements.handlers.operations import process_next_chunk
from muster_entitlements.repository import operations
from muster_runtime.context import Context
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.service import Runtime

# How long an agency's file waits after a failure, such as a full disk; other agencies' files continue.
RETRY_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class SeatFiles:
    """The worker. Several processes may run it at once: a chunk is processed under the agency's lock."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._held_until: dict[str, float] = {}

    async def run(self, runtime: Runtime) -> None:
        """Process files until canceled."""
        while True:
            if not await self._process_round(runtime):
                await runtime.wakeup.wait()

    async def _process_round(self, runtime: Runtime) -> bool:
        """Process a chunk of each agency that has a file; False if there was nothing to do."""
        try:
            async with runtime.database.connection() as connection:
                agencies = await operations.list_agencies(connection)
        except RETRYABLE as error:
            _log.warning("seat_files_retried", error=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
            return True
        if agencies and runtime.backlog.is_full:
            _log.warning("seat_files_wait", reason="too many events are waiting to be published")
            await asyncio.sleep(RETRY_SECONDS)
            return True
        time = asyncio.get_running_loop().time()
        ready = [agency_id for agency_id in agencies if self._held_until.get(agency_id, 0.0) <= time]
        for agency_id in ready:
            await self._process(runtime, agency_id)
        if agencies and not ready:
            await asyncio.sleep(RETRY_SECONDS)
        return bool(agencies)

    async def _process(self, runtime: Runtime, agency_id: str) -> None:
        database = runtime.database
        try:
            async with database.connection() as connection:
                operation = await operations.find_next(connection, agency_id)
            if operation is None:
                return
            context = Context(actor=operation.actor, correlation_id=operation.correlation_id)
            async with database.write(agency_id, context=context) as uow:
                await process_next_chunk(uow, agency_id, self._directory)
            self._held_until.pop(agency_id, None)
        except Exception as error:
            if isinstance(error, RETRYABLE):
                _log.warning("seat_file_retried", agency_id=agency_id, error=repr(error))
            else:
                _log.exception("seat_file_failed", agency_id=agency_id)
            self._held_until[agency_id] = asyncio.get_running_loop().time() + RETRY_SECONDS
