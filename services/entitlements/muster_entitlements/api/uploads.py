"""Receives the file of a request as a stream: each chunk is stored in its own transaction."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from muster_contracts.entitlements import SeatBatchKind
from muster_entitlements.domain.operations import OnLimit
from muster_entitlements.domain.seat_file import FileCutter
from muster_entitlements.errors.files import StoredReplyDeleted, UploadCutOff
from muster_entitlements.handlers.uploads import accept_upload, add_chunk, begin_upload, discard_upload
from muster_entitlements.replies import OperationReply
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.http.application import Commands


class Upload:
    """A file that is being received. Without an operation, it is not stored: the request repeats an earlier one."""

    def __init__(self, commands: Commands, agency_id: str, operation_id: str | None, kind: SeatBatchKind) -> None:
        self.accepted = False
        self._operation_id = operation_id
        self._commands = commands
        self._agency_id = agency_id
        self._cutter = FileCutter(kind)
        self._digest = hashlib.sha256()
        self._chunks = 0

    async def read(self, request: Request) -> bytes:
        """Store the chunks of the body as they arrive; returns its SHA-256.

        Raises InvalidInput, UploadCutOff, or UploadTooSlow.
        """
        try:
            async for piece in request.stream():
                self._digest.update(piece)
                await self._store(piece)
        except ClientDisconnect:
            raise UploadCutOff from None
        await self._store(None)
        return self._digest.digest()

    async def accept(self, uow: UnitOfWork) -> OperationReply:
        """Queue the file for processing. Raises UploadTooSlow, TooManyResults, or StoredReplyDeleted."""
        if self._operation_id is None:
            raise StoredReplyDeleted
        reply = await accept_upload(uow, self._agency_id, self._operation_id, self._cutter.columns, self._chunks)
        self.accepted = True
        return reply

    async def _store(self, piece: bytes | None) -> None:
        if self._operation_id is None:
            return
        for chunk in self._cutter.end() if piece is None else self._cutter.feed(piece):
            async with self._commands.write(self._agency_id) as uow:
                await add_chunk(uow, self._agency_id, self._operation_id, self._chunks, chunk)
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
    """An upload that is discarded unless it is accepted. Raises PoolUnknown, TooManyFiles, or TooManyResults.

    An upload that repeats an earlier one needs only the digest of its body, and meets no limit.
    """
    operation_id = None
    async with commands.write(agency_id) as uow:
        if not await commands.is_repeated(uow, agency_id):
            operation_id = await begin_upload(
                uow, agency_id, kind, dry_run=dry_run, on_limit=on_limit, directory=directory
            )
    upload = Upload(commands, agency_id, operation_id, kind)
    try:
        yield upload
    finally:
        if operation_id is not None and not upload.accepted:
            async with commands.write(agency_id) as uow:
                await discard_upload(uow, agency_id, operation_id)
