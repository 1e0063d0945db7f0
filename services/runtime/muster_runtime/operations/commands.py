"""What the operators' routes work with. Their commands run as the worker role, once per Idempotency-Key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request

from muster_runtime.context import Context
from muster_runtime.database.commits import STANDBY_GONE, CommitUnconfirmed
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import NotFound
from muster_runtime.http.application import RuntimeDep
from muster_runtime.http.approvals import key_of
from muster_runtime.http.auth import IdentityDep
from muster_runtime.http.tenancy import Commands, KeyHeader
from muster_runtime.messaging.subscriptions import Subscriptions


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


async def _commands(
    request: Request, runtime: RuntimeDep, identity: IdentityDep, idempotency_key: KeyHeader = None
) -> OperatorCommands:
    database = runtime.database  # the worker role's, which waits for commits
    if database.commits.standby_gone:
        raise CommitUnconfirmed(STANDBY_GONE)
    return OperatorCommands(database, identity, request.state.context, key_of(request, idempotency_key))


async def _subscriptions(request: Request) -> Subscriptions:
    subscriptions: Subscriptions = request.app.state.subscriptions
    return subscriptions


OperatorCommandsDep = Annotated[OperatorCommands, Depends(_commands)]

# The service's event handlers, in the application's state.
SubscriptionsDep = Annotated[Subscriptions, Depends(_subscriptions)]
