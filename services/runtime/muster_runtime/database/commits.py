"""Commits that Postgres does not confirm: while a synchronous standby is gone, each of them waits for it.

Canceling that wait does not undo the transaction: it takes effect on the primary alone, without an error, and a
failover would lose it. So a commit is never canceled here. A request stops waiting for it instead; a worker waits
until it is confirmed, because what it has done meanwhile, such as sending an e-mail, must be recorded.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from muster_runtime.database.connections import Connection
from muster_runtime.errors import RetryableError

# How long a request waits for a commit.
COMMIT_SECONDS = 5.0

STANDBY_GONE = "Postgres waits for its synchronous standby"

_log = structlog.get_logger(__name__)


class CommitUnconfirmed(RetryableError):
    """Postgres does not confirm commits: one that was sent may have taken effect."""


class Commits:
    """The commits of one role's pool.

    With `patience`, in seconds, callers give up after that, and no other transaction is begun until what is
    unconfirmed is confirmed. Without, they wait.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._unconfirmed: set[asyncio.Task[None]] = set()
        self._interruptible: set[asyncio.Timeout] = set()
        self._standby_gone = False

    @property
    def standby_gone(self) -> bool:
        """Whether some commit of the server waits for its synchronous standby, as the monitor has last seen."""
        return self._standby_gone

    @standby_gone.setter
    def standby_gone(self, gone: bool) -> None:
        self._standby_gone = gone
        if gone and self._patience is not None:
            for timeout in self._interruptible:
                timeout.reschedule(asyncio.get_running_loop().time())

    def admit(self) -> None:
        """Raise CommitUnconfirmed if a transaction could not be committed now."""
        if self._patience is None:
            return
        if self._standby_gone:
            raise CommitUnconfirmed(STANDBY_GONE)
        if self._unconfirmed:
            raise CommitUnconfirmed(f"Postgres has not confirmed a commit within {self._patience} s")

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Wait for a lock only until the standby is found to be gone: whoever holds the lock may wait for it.

        Raises CommitUnconfirmed then.
        """
        try:
            async with asyncio.timeout(None) as timeout:
                self._interruptible.add(timeout)
                try:
                    yield
                finally:
                    self._interruptible.discard(timeout)
        except TimeoutError:
            if timeout.expired():
                raise CommitUnconfirmed(STANDBY_GONE) from None
            raise

    @asynccontextmanager
    async def transaction(self, connection: Connection, held: AsyncExitStack) -> AsyncIterator[None]:
        """A transaction on a connection, which `held` gives back.

        Raises CommitUnconfirmed if the commit takes too long. It then goes on, and keeps the connection; the same
        where its caller is canceled.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield
        except BaseException:
            await transaction.rollback()
            raise
        committing = asyncio.ensure_future(transaction.commit())
        try:
            await asyncio.wait([committing], timeout=self._patience)
        finally:
            if not committing.done():
                self._leave(committing, held.pop_all())
        if not committing.done():
            raise CommitUnconfirmed(f"Postgres has not confirmed the commit within {self._patience} s")
        await committing

    def _leave(self, committing: "asyncio.Future[None]", connection: AsyncExitStack) -> None:
        task = asyncio.create_task(_confirmed(committing, connection))
        self._unconfirmed.add(task)
        task.add_done_callback(self._unconfirmed.discard)


async def _confirmed(committing: "asyncio.Future[None]", connection: AsyncExitStack) -> None:
    """Give the connection back when a commit has ended; its caller knows that it may have failed."""
    try:
        async with connection:
            await committing
    except Exception as error:
        _log.warning("commit_lost", error=type(error).__name__)
