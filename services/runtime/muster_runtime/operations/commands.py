"""Operators' commands: they run as the worker role, once per Idempotency-Key."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from muster_runtime.context import Context
from muster_runtime.database.commits import STANDBY_GONE, CommitUnconfirmed
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import Database, UnitOfWork
from muster_runtime.errors import NotFound
from muster_runtime.http.approvals import check_key
from muster_runtime.http.auth import IdentityDep
from muster_runtime.http.idempotency import Key
from muster_runtime.http.tenancy import Commands, KeyHeader


class OperatorCommands(Commands):
    """The write side of an operator's request. Its route requires a token for all agencies.

    It may also change streams of unknown agencies, which contain the records with invalid keys.
    """

    @asynccontextmanager
    async def write(self, *agencies: str, lock: Lock = LOCK) -> AsyncIterator[UnitOfWork]:
        """A unit of work on the agencies' streams. Raises NotFound if no stream can have that name."""
        for agency_id in agencies:
            if not agency_id or not agency_id.isprintable() or "," in agency_id:
                raise NotFound(f"there is no agency {agency_id[:40]!r}")
        async with self._database.write(*agencies, context=self.context, lock=lock) as uow:
            yield uow

    @property
    def context(self) -> Context:
        """The request's caller and IDs."""
        return self._context


def operators_commands(database: Database) -> Callable[..., Coroutine[Any, Any, OperatorCommands]]:
    """The dependency of a route that executes commands. `database` is the worker role's, which waits for commits."""

    async def commands(request: Request, identity: IdentityDep, idempotency_key: KeyHeader = None) -> OperatorCommands:
        if database.commits.standby_gone:
            raise CommitUnconfirmed(STANDBY_GONE)
        check_key(request, idempotency_key)
        key = None if idempotency_key is None else Key(idempotency_key, request)
        return OperatorCommands(database, identity, request.state.context, key)

    return commands
