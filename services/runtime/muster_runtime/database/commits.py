"""Commits that Postgres does not confirm: while a synchronous standby is gone, every commit waits for it.

Canceling that wait does not undo the transaction. It takes effect on the primary only, without an error, and a failover
would lose it. So a commit is never canceled here. A request stops waiting for it instead. A worker waits until it is
confirmed, because what it has already done, such as sending an e-mail, must be recorded.
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
    """Postgres does not confirm commits. A commit that was sent may have taken effect."""


class Commits:
    """The commits of one role's pool.

    With `patience`, in seconds, callers stop waiting after that time, and no other transaction begins until the
    commits that have waited so long are confirmed. Without it, callers wait.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._left: dict[asyncio.Task[None], float] = {}  # each with the time at which it was sent
        self._interruptible: set[asyncio.Timeout] = set()
        self._standby_gone = False

    @property
    def standby_gone(self) -> bool:
        """Whether any commit on the server waits for its synchronous standby, as last seen by the monitor."""
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
        late = asyncio.get_running_loop().time() - self._patience
        if any(sent_at <= late for sent_at in self._left.values()):
            raise CommitUnconfirmed(f"Postgres has not confirmed a commit within {self._patience} s")

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Stop waiting for a lock once the standby is known to be gone: the lock's holder may wait for the standby.

        Raises CommitUnconfirmed in that case.
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
        """A transaction on a connection that `held` returns to the pool.

        Raises CommitUnconfirmed if the commit takes too long. The commit then continues and keeps the connection, also
        if the caller is canceled.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield
        except BaseException:
            await transaction.rollback()
            raise
        sent_at = asyncio.get_running_loop().time()
        committing = asyncio.ensure_future(transaction.commit())
        try:
            await asyncio.wait([committing], timeout=self._patience)
        finally:
            if not committing.done():
                self._leave(committing, sent_at, held.pop_all())
        if not committing.done():
            raise CommitUnconfirmed(f"Postgres has not confirmed the commit within {self._patience} s")
        await committing

    def _leave(self, committing: "asyncio.Future[None]", sent_at: float, connection: AsyncExitStack) -> None:
        task = asyncio.create_task(_confirmed(committing, connection))
        self._left[task] = sent_at
        task.add_done_callback(self._left.pop)


async def _confirmed(committing: "asyncio.Future[None]", connection: AsyncExitStack) -> None:
    """Return the connection when a commit has ended. Its caller already knows that the commit may have failed."""
    try:
        async with connection:
            await committing
    except Exception as error:
        _log.warning("commit_lost", error=type(error).__name__)
