"""Receiving a file of seats: as a stream, kept chunk by chunk, and worked on only when it is here as a whole."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain import OnLimit
from muster_entitlements.errors import UploadCutOff, UploadTooSlow
from muster_entitlements.handlers.operations import COMMANDS, UPLOAD_ABANDONED, UPLOAD_PATIENCE, discard
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.replies import OperationReply
from muster_entitlements.repository import operations
from muster_entitlements.seat_file import FileCutter
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.http.application import Commands
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline


class Upload:
    """A file on its way in."""

    def __init__(self, commands: Commands, agency_id: str, operation_id: str, kind: SeatBatchKind) -> None:
        self.operation_id = operation_id
        self.accepted = False
        self._commands = commands
        self._agency_id = agency_id
        self._cutter = FileCutter(kind)
        self._digest = hashlib.sha256()
        self._chunks = 0

    async def read(self, request: Request) -> bytes:
        """Keep the body's chunks as they come; returns its SHA-256. Raises InvalidInput or UploadCutOff."""
        try:
            async for piece in request.stream():
                self._digest.update(piece)
                await self._keep(piece)
        except ClientDisconnect:
            raise UploadCutOff from None
        await self._keep(None)
        return self._digest.digest()

    async def accept(self, uow: UnitOfWork) -> OperationReply:
        """Let the file be worked on. Raises UploadTooSlow where it was discarded before it was whole."""
        accepted = self._cutter.columns and await operations.accept(
            uow.connection, self._agency_id, self.operation_id, self._cutter.columns, self._chunks
        )
        if not accepted:
            raise UploadTooSlow(UPLOAD_PATIENCE)
        operation = await operations.find_operation(uow.connection, self._agency_id, self.operation_id)
        assert operation is not None  # it was accepted in this very transaction
        deadlines.cancel(uow, self._agency_id, UPLOAD_ABANDONED, [self.operation_id])
        audit.record(
            uow,
            command=COMMANDS[operation.kind],
            agency_id=self._agency_id,
            subject=self.operation_id,
            after={"state": operation.state, "dry_run": operation.dry_run, "on_limit": operation.on_limit},
        )
        uow.wake()
        self.accepted = True
        return OperationReply.of(operation, uow.now)

    async def _keep(self, piece: bytes | None) -> None:
        for chunk in self._cutter.end() if piece is None else self._cutter.feed(piece):
            async with self._commands.write(self._agency_id) as uow:
                await operations.add_chunk(uow.connection, self._agency_id, self.operation_id, self._chunks, chunk)
            self._chunks += 1


@asynccontextmanager
async def receiving(
    commands: Commands,
    agency_id: str,
    kind: SeatBatchKind,
    *,
    dry_run: bool,
    on_limit: OnLimit = OnLimit.FILL,
    directory: bool = False,
) -> AsyncIterator[Upload]:
    """An upload that is discarded unless it is accepted. Raises PoolUnknown."""
    async with commands.write(agency_id) as uow:
        pool = await known_pool(uow, agency_id)
        operation_id = new_id("bat", uow.now)
        await operations.add_operation(
            uow.connection,
            operation_id,
            pool,
            kind,
            uow.context,
            uow.now,
            dry_run=dry_run,
            on_limit=on_limit,
            directory=directory,
        )
        due_at = uow.now + UPLOAD_PATIENCE  # should this process die
        deadlines.schedule(uow, [Deadline(UPLOAD_ABANDONED, agency_id, operation_id, due_at)])
    upload = Upload(commands, agency_id, operation_id, kind)
    try:
        yield upload
    finally:
        if not upload.accepted:
            async with commands.write(agency_id) as uow:
                await discard(uow, agency_id, operation_id)
                deadlines.cancel(uow, agency_id, UPLOAD_ABANDONED, [operation_id])
