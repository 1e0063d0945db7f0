"""An operator's commands: as the worker role, each carried out once under its Idempotency-Key."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from muster_runtime.context import Context
from muster_runtime.database.commits import STANDBY_GONE, CommitUnconfirmed
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import Database, UnitOfWork
from muster_runtime.errors import NotFound
from muster_runtime.http.auth import IdentityDep
from muster_runtime.http.idempotency import Key
from muster_runtime.http.tenancy import Commands, KeyHeader


class OperatorCommands(Commands):
    """The write side of an operator's request; its route has asked for a token of the program.

    It acts on streams of agencies that nobody knows, too: those of records with a worthless key.
    """

    @asynccontextmanager
    async def write(self, *agencies: str, lock: Lock = LOCK) -> AsyncIterator[UnitOfWork]:
        """A unit of work on agencies' streams. Raises NotFound where there can be none of such a name."""
        for agency_id in agencies:
            if not agency_id.isprintable() or "," in agency_id:
                raise NotFound(f"there is no agency {agency_id[:40]!r}")
        async with self._database.write(*agencies, context=self.context, lock=lock) as uow:
            yield uow

    @property
    def context(self) -> Context:
        """Who asks, and the ids of the request."""
        return self._context


def operators_commands(database: Database) -> Callable[..., Coroutine[Any, Any, OperatorCommands]]:
    """The dependency of routes that make them; `database` is the worker role's, which waits for its commits."""

    async def commands(request: Request, identity: IdentityDep, idempotency_key: KeyHeader = None) -> OperatorCommands:
        if database.commits.standby_gone:
            raise CommitUnconfirmed(STANDBY_GONE)
        key = None if idempotency_key is None else Key(idempotency_key, request)
        return OperatorCommands(database, identity, request.state.context, key)

    return commands
