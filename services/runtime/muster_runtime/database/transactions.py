"""Postgres: a pool per role, reads of one tenant, and the unit of work that every change goes through."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Literal, Protocol, Self

import asyncpg
from pydantic import SecretStr

from muster_runtime.clock import Clock
from muster_runtime.context import Context
from muster_runtime.database import locks, traced
from muster_runtime.database.array_types import ArrayTypes
from muster_runtime.database.commits import COMMIT_SECONDS, Commits
from muster_runtime.database.connections import Connection as Connection
from muster_runtime.database.disk import Disk
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.schema import Fitting, MigrationsPending, Schema, SchemaTooNew
from muster_runtime.database.sessions import PASSWORD_SECONDS, VANISHED_CLIENTS, Address, configure, keep_alive
from muster_runtime.database.unit_of_work import UnitOfWork as UnitOfWork
from muster_runtime.errors import ClockSkewed, RetryableError
from muster_runtime.identifiers import EVERY_AGENCY as EVERY_AGENCY

# A caller that gets no connection for so long gets 503 with Retry-After.
ACQUIRE_SECONDS = 10

# How long a closing pool waits for connections that are in use.
CLOSE_SECONDS = 2

# Errors that are no fault of the work, and may concern one agency alone: its lock is held, its rows cannot be read.
ONE_AGENCYS = (asyncpg.LockNotAvailableError, asyncpg.PostgresSystemError, asyncpg.InternalServerError)

# The schema does not fit the code.
MISFITS = (MigrationsPending, SchemaTooNew)

# Errors of the server's state, and no fault of the work: a lost connection, a lock timeout, a server
# that is full, in recovery, being put back from a backup, or has its passwords changed.
RETRYABLE = (
    OSError,
    TimeoutError,
    RetryableError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a backend killed at the wrong moment confuses the driver's state
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,  # a replica that does not lead yet
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Not all of class 54: a value too long for an index is the work's fault. A server that has run out of transaction
    # IDs reports the same error, but then nothing can be parked either.
    asyncpg.StatementTooComplexError,
    asyncpg.TooManyColumnsError,
    asyncpg.TooManyArgumentsError,
    asyncpg.QueryCanceledError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidCachedStatementError,  # a migration has changed the table meanwhile
    *ONE_AGENCYS,
)

_BEGIN_READ = """
select
    set_config('muster.agency', $1, true),
    set_config('statement_timeout', coalesce($2, current_setting('statement_timeout')), true)
"""


async def _keep_session(_connection: "asyncpg.Connection[Any]") -> None:
    """Keep a session's settings when its connection returns to the pool.

    The driver's own reset would clear them. Nothing else needs it: all other state ends with its transaction.
    """


def concerns_all(error: Exception) -> bool:
    """Whether an error is the server's, and would be met with any agency."""
    return isinstance(error, RETRYABLE) and not isinstance(error, ONE_AGENCYS)


class Gate(Protocol):
    """What a command passes before it takes a connection."""

    def turn(self, agencies: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """Wait for the turn of a command that changes these agencies, and hold it."""


class Database:
    """A service's schema, as one of its roles sees it.

    `address` is where it is. `server`: when the server of the newest connection was started, which identifies the
    server and this run of it.
    """

    pool: "asyncpg.Pool[Any]"

    def __init__(
        self,
        dsn: SecretStr | str,
        name: str,
        clock: Clock,
        *,
        size: int = 10,
        lock_timeout_seconds: int = 30,
        statement_seconds: float | None = None,
        gate: Gate | None = None,
        schema: Schema | None = None,
    ) -> None:
        """A pool of at most `size` connections, whose search path is the schema of this name; `open` opens it.

        With `statement_seconds`, Postgres ends a read's statement that takes longer, and any other one that takes
        longer than that after the longest wait for a lock.
        With `gate`, its callers are commands: a writer passes the gate before it takes a connection, and gives up
        waiting for a commit. With `schema`, as the code knows it, work that the database refuses asks whether a
        migration is pending that the code needs.
        """
        self.address = Address(dsn, PASSWORD_SECONDS)
        self.clock = clock
        self.commits = Commits(COMMIT_SECONDS if gate else None)
        self.disk = Disk()
        self.server: datetime | None = None
        self._name = name
        self._size = size
        self._gate = gate
        self._fitting = Fitting(schema)
        self._array_types = ArrayTypes()
        self._lock_seconds = lock_timeout_seconds
        self._lock_waiters = asyncio.Semaphore(max(1, size // 3))  # who may wait for long, each with a connection
        self._read_milliseconds = None if statement_seconds is None else f"{statement_seconds * 1000:.0f}"
        self._settings = {
            "search_path": name,
            "application_name": f"muster-{name}",
            "lock_timeout": str(lock_timeout_seconds * 1000),
            **VANISHED_CLIENTS,
        }
        if statement_seconds is not None:
            self._settings["statement_timeout"] = f"{(lock_timeout_seconds + statement_seconds) * 1000:.0f}"

    async def open(self) -> Self:
        """Open the pool, with a first connection."""
        self.pool = await asyncpg.create_pool(
            connect=self.address.connect, init=self._configure, reset=_keep_session, min_size=1, max_size=self._size
        )
        return self

    async def _configure(self, connection: "asyncpg.Connection[Any]") -> None:
        """Enable keepalives, register the array types, apply the session settings, and note the server's start time."""
        keep_alive(connection)
        await self._array_types.teach(connection)
        self.server = await configure(connection, self._settings)

    async def close(self) -> None:
        """Close the pool; a connection that is not given back in time is cut."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside of any transaction.

        Raises MigrationsPending, or SchemaTooNew, if the schema lacks what it asks for.
        """
        async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            before = self._fitting.last
            try:
                yield connection
            except asyncpg.SyntaxOrAccessError as error:  # a column that is not there, a right that is not granted
                await self._fitting.blame(connection, error, before)
                raise

    @asynccontextmanager
    async def spare_connection(self, patience: float) -> AsyncIterator[Connection]:
        """A connection of the pool or, if all are in use for so many seconds, a new one."""
        async with AsyncExitStack() as stack:
            try:
                connection: Connection = await stack.enter_async_context(self.pool.acquire(timeout=patience))
            except TimeoutError:
                connection = await self.address.connect()
                stack.push_async_callback(connection.close, timeout=CLOSE_SECONDS)
                await self._configure(connection)
            yield connection

    @asynccontextmanager
    async def blaming_schema(self, but: tuple[type[Exception], ...] = ()) -> AsyncIterator[None]:
        """Raise MigrationsPending or SchemaTooNew instead of an error that the schema may have caused.

        While the schema does not fit the code, that is any error, except retryable ones and those in `but`, which have
        nothing to do with the schema. So work is blamed for its errors, for example parked, only while the schema fits.
        """
        before = self._fitting.last
        try:
            yield
        except RETRYABLE:
            raise
        except Exception as error:
            if isinstance(error, but):
                raise
            async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                await self._fitting.blame(connection, error, before)
            raise

    async def fits(self) -> bool:
        """Whether the schema fits the code, as last compared: at first, and again as long as it did not fit."""
        if self._fitting.is_known:
            return True
        async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await self._fitting.ask(connection)

    @asynccontextmanager
    async def write(self, *agencies: str, context: Context, lock: Lock = LOCK) -> AsyncIterator[UnitOfWork]:
        """Lock the agencies, yield a unit of work, publish its events and commit.

        Any error rolls all of it back. Row-level security refuses a write to an agency not named here. Raises what the
        gate raises; MigrationsPending or SchemaTooNew if the schema lacks what the work needs; ClockSkewed if the clock
        and the database's disagree; and CommitUnconfirmed if there is a gate and Postgres does not confirm commits: the
        unit of work may still take effect.
        """
        if not agencies:
            raise RuntimeError("a unit of work must name the agencies that it changes")
        async with AsyncExitStack() as turn, AsyncExitStack() as work:
            span = turn.enter_context(traced.transaction(self._name, agencies))
            begin = partial(self._begin, work, agencies, lock)
            if self._gate is None:
                connection, now, found = await begin(None)
            else:
                await turn.enter_async_context(self._gate.turn(agencies))
                connection, now, found = await locks.in_rounds(begin, self._lock_seconds, self._lock_waiters)
            span.add_event("locked")
            uow = UnitOfWork(connection, frozenset(agencies), now, traced.carried_on(context), found)
            yield uow
            await uow.flush()

    async def _begin(
        self, work: AsyncExitStack, agencies: Sequence[str], lock: Lock, seconds: float | None
    ) -> tuple[Connection, datetime, Sequence[asyncpg.Record]]:
        """Begin a transaction, which `work` ends, and take the agencies' locks in one round of so many seconds."""
        self.commits.admit()
        async with AsyncExitStack() as begun:
            connection = await begun.enter_async_context(self._transaction())
            async with self.commits.interruptible(), locks.one_round(seconds):
                now, found = await locks.take(connection, self.clock, agencies, lock)
            work.push_async_exit(begun.pop_all())
        return connection, now, found

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A transaction that writes. Raises CommitUnconfirmed, after which the commit keeps the connection."""
        async with AsyncExitStack() as held:
            connection = await held.enter_async_context(self.connection())
            with self.disk.watched():
                async with self.commits.transaction(connection, held):
                    yield connection

    @asynccontextmanager
    async def read(
        self, *agencies: str, of_one_state: bool = False, partitioned: str | None = None
    ) -> AsyncIterator[Connection]:
        """A read-only transaction that sees these agencies' rows, or with EVERY_AGENCY alone all rows.

        With `of_one_state`, all statements see the same snapshot. The read must name its `partitioned` table, if any.
        """
        isolation: Literal["repeatable_read"] | None = "repeatable_read" if of_one_state else None
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=True):
            await _begin_read(connection, agencies, self._read_milliseconds, partitioned)
            yield connection

    @asynccontextmanager
    async def read_on_record(self, agency: str) -> AsyncIterator[Connection]:
        """Like read, but its transaction also records it. Raises ClockSkewed and CommitUnconfirmed, as write does."""
        self.commits.admit()
        async with self._transaction() as connection:
            if reason := await locks.ask_for_skew(connection, self.clock):
                raise ClockSkewed(reason)
            await _begin_read(connection, [agency], self._read_milliseconds)
            yield connection


async def _begin_read(
    connection: Connection, agencies: Sequence[str], milliseconds: str | None, partitioned: str | None = None
) -> None:
    """Set whose rows a read sees, and limit its statements. A lock keeps the rows of `partitioned` in their places."""
    if partitioned is not None:  # before the first query, which takes the snapshot
        limit = f"set local statement_timeout = {milliseconds};" if milliseconds else ""
        await connection.execute(f"{limit} lock table only {partitioned} in access share mode")
    await connection.execute(_BEGIN_READ, ",".join(sorted(agencies)), milliseconds)
