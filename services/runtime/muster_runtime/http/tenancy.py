"""A request's reads and commands, limited to the agencies that its token acts for."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel, JsonValue

from muster_runtime.context import Context
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import Connection, Database, UnitOfWork
from muster_runtime.errors import PermanentError
from muster_runtime.http.approvals import SecondPerson, key_of, second_person_of
from muster_runtime.http.auth import IdentityDep
from muster_runtime.http.idempotency import Key, Reply, find_reply
from muster_runtime.http.identity import Identity
from muster_runtime.http.rate_limits import PersonalReadLimit
from muster_runtime.http.read_shares import ReadShares
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.observability import personal_reads
from muster_runtime.observability.personal_reads import PersonalRead

R = TypeVar("R", bound=BaseModel | None)

# For the documentation only: FastAPI does not check it, so that an invalid ETag is answered with 400.
_ETAG_SCHEMA: dict[str, JsonValue] = {"pattern": '^"[0-9]{1,18}"$', "examples": ['"7"']}

# What to do after each error that refuses a command.
AfterRefusal = Mapping[type[PermanentError], Callable[[UnitOfWork], Awaitable[None]]]

_ETAG = re.compile(r'"(\d{1,18})"')


class PreconditionRequired(PermanentError):
    """The request must name the version that it changes in If-Match (RFC 6585, 3)."""

    status = 428
    slug = "precondition-required"
    title = "An If-Match header is required"


class InvalidEntityTag(PermanentError):
    """If-Match is not exactly one ETag from a response."""

    status = 400
    slug = "invalid-entity-tag"
    title = "The If-Match header is invalid"


class Reader:
    """The read side of a request, within its tenant's share of the connections."""

    def __init__(
        self,
        database: Database,
        shares: ReadShares,
        personal_read_limit: PersonalReadLimit,
        identity: Identity,
        route: str,
        context: Context,
    ) -> None:
        self._database = database
        self._shares = shares
        self._personal_read_limit = personal_read_limit
        self._identity = identity
        self._route = route
        self._context = context

    @property
    def agencies(self) -> frozenset[str]:
        """The agencies whose rows the caller may see; only EVERY_AGENCY for an operator."""
        return self._identity.agencies

    def tenant(self, agency_id: str) -> str:
        """The tenant for a read about an agency: EVERY_AGENCY for an operator, otherwise the agency itself."""
        return EVERY_AGENCY if self._identity.is_program else agency_id

    @asynccontextmanager
    async def read(
        self, agency_id: str, *, of_one_state: bool = False, partitioned: str | None = None
    ) -> AsyncIterator[Connection]:
        """A read-only transaction that sees the agency's rows. Raises NotFound for another tenant's agency.

        With `of_one_state`, every statement sees the same snapshot, and also finds the rows of a `partitioned` table.
        """
        self._identity.admit(agency_id)
        reading = self._database.read(agency_id, of_one_state=of_one_state, partitioned=partitioned)
        async with self._share(), reading as connection:
            yield connection

    @asynccontextmanager
    async def read_own(self, *, of_one_state: bool = False) -> AsyncIterator[Connection]:
        """Like read, but for all of the caller's agencies and no others."""
        async with self._share(), self._database.read(*self.agencies, of_one_state=of_one_state) as connection:
            yield connection

    @asynccontextmanager
    async def read_people(self, agency_id: str) -> AsyncIterator[PersonalRead]:
        """Like read, for a reply with people's names or addresses. The caller says whose, and that is recorded.

        If the read cannot be recorded, it does not happen: the request gets 503. Raises QuotaExceeded.
        """
        self._identity.admit(agency_id)
        self._personal_read_limit.take(self._identity)
        async with (
            self._share(),
            personal_reads.reading(self._database, agency_id, self._route, self._context) as read,
        ):
            yield read

    def _share(self) -> AbstractAsyncContextManager[None]:
        return self._shares.take(self._identity.tenant)


class Commands:
    """The write side of a request."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        context: Context,
        key: Key | None,
        second_person: SecondPerson | None = None,
    ) -> None:
        """`second_person` is set if the route needs approval."""
        self._database = database
        self._identity = identity
        self._context = context
        self._key = key
        self._second_person = second_person

    async def execute(
        self,
        agency_id: str,
        handler: Callable[[UnitOfWork], Awaitable[R]],
        *others: str,
        status_code: int = 200,
        location: Callable[[R], str] | None = None,
        version: Callable[[R], int] | None = None,
        body_sha256: bytes | None = None,
        kept: Callable[[R], R] = lambda reply: reply,
        after_refusal: AfterRefusal | None = None,
    ) -> Response:
        """Execute a command under the agency's lock, and return the response with its reply (None: an empty body).

        With an Idempotency-Key, the same transaction stores the reply, and a repeated request gets that reply. An error
        rolls everything back and is not stored, so the key can be used again. Call this once per request. `others` are
        locked too.

        `version` gives the version for the reply's ETag. `kept` removes what must not be stored from the stored reply,
        such as a secret that is shown once or a person's name. `body_sha256` is the digest of a body that was read as a
        stream. A refusal rolls the transaction back, so its consequence, `after_refusal`, runs in a separate one.
        """
        keyed = await self._key.of_body(body_sha256) if self._key else None
        lock = keyed.lock(agency_id) if keyed else LOCK
        async with (
            self._followed(agency_id, after_refusal or {}),
            self.write(agency_id, *others, lock=lock) as uow,
        ):
            if keyed and (found := keyed.reply(uow)):
                return found.response(replayed=True)
            stored = reply = await self._before_handler(uow, agency_id, handler)
            if reply is None:
                result = await handler(uow)
                headers = {} if location is None else {"location": location(result)}
                headers |= {} if version is None else {"etag": etag(version(result))}
                reply = Reply(status_code, _body(result), headers)
                stored = replace(reply, body=_body(kept(result)))
            if keyed and stored:
                keyed.keep(uow, agency_id, stored)
        return reply.response()

    async def _before_handler(
        self, uow: UnitOfWork, agency_id: str, handler: Callable[[UnitOfWork], Awaitable[R]]
    ) -> Reply | None:
        """The reply, if the command does not run now because it waits for a second person."""
        if self._second_person is None:
            return None
        proposed = await self._second_person.before_command(uow, agency_id, handler)
        if proposed is None:
            return None
        return Reply(202, _body(proposed), {"location": f"/v1/proposals/{proposed.proposal_id}"})

    async def is_repeated(self, uow: UnitOfWork, agency_id: str) -> bool:
        """Whether a reply is stored under the request's Idempotency-Key."""
        return self._key is not None and await find_reply(uow.connection, agency_id, self._key.value) is not None

    @asynccontextmanager
    async def write(self, *agencies: str, lock: Lock = LOCK) -> AsyncIterator[UnitOfWork]:
        """A unit of work without the Idempotency-Key: one step of long work that is safe to repeat."""
        for agency_id in agencies:
            self._identity.admit(agency_id)
        async with self._database.write(*agencies, context=self._context, lock=lock) as uow:
            yield uow

    @asynccontextmanager
    async def _followed(self, agency_id: str, after_refusal: AfterRefusal) -> AsyncIterator[None]:
        try:
            yield
        except tuple(after_refusal) as refusal:
            async with self.write(agency_id) as uow:
                await after_refusal[type(refusal)](uow)
            raise


def _body(reply: BaseModel | None) -> bytes:
    return b"" if reply is None else reply.__pydantic_serializer__.to_json(reply)


async def _reader(request: Request, identity: IdentityDep) -> Reader:
    route = f"{request.method} {request.scope['route'].path}"
    state = request.app.state
    return Reader(state.database, state.read_shares, state.personal_read_limit, identity, route, request.state.context)


KeyHeader = Annotated[
    str | None,
    Header(
        description="1 to 255 printable ASCII characters. A request repeated with the same key is executed once.",
        json_schema_extra={"pattern": "^[ -~]{1,255}$"},
    ),
]


async def _commands(request: Request, identity: IdentityDep, idempotency_key: KeyHeader = None) -> Commands:
    key, second_person = key_of(request, idempotency_key), second_person_of(request)
    return Commands(request.app.state.database, identity, request.state.context, key, second_person)


def _version(if_match: str) -> int:
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidEntityTag(f'If-Match: {if_match[:40]!r} must be one ETag of a response, such as "7"')
    return int(match[1])


async def _if_match(
    if_match: Annotated[
        str | None, Header(description="The ETag of the version that you read.", json_schema_extra=_ETAG_SCHEMA)
    ] = None,
) -> int | None:
    return None if if_match is None else _version(if_match)


async def _required_if_match(
    if_match: Annotated[
        str,
        Header(
            description="The ETag of the version that you read. A request without it gets 428.",
            json_schema_extra=_ETAG_SCHEMA,
        ),
    ],
) -> int:
    return _version(if_match)


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


ReaderDep = Annotated[Reader, Depends(_reader)]
CommandsDep = Annotated[Commands, Depends(_commands)]
IfMatchDep = Annotated[int | None, Depends(_if_match)]
RequiredIfMatchDep = Annotated[int, Depends(_required_if_match)]
