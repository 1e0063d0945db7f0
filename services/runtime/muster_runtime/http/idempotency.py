"""Stored replies: the transaction that executes a command stores its reply under the request's Idempotency-Key.

A reply is stored for a limited time (the setting `idempotency_retention_days`), without personal data such as names.

The row is read after the agency's lock is taken, so if several requests have the same key, the first executes the
command and the others find its reply. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import timedelta

from fastapi import Request, Response

from muster_runtime.database.locks import Lock
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.errors import PermanentError
from muster_runtime.scheduling.retention import Retention, rows_since

_KEY = re.compile(r"[\x20-\x7e]{1,255}")


_KEEP = """
kept as (
    insert into idempotency (agency_id, key, route, body_sha256, status, headers, body, recorded_at)
    select *
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::bytea[], $5::integer[], $6::jsonb[], $7::bytea[], $8::timestamptz[]
    )
)
"""


class InvalidIdempotencyKey(PermanentError):
    """The header's value is not a valid key."""

    status = 400
    slug = "invalid-idempotency-key"
    title = "The Idempotency-Key is invalid"


class IdempotencyMismatch(PermanentError):
    """The key was used for another request."""

    status = 422
    slug = "idempotency-mismatch"
    title = "The Idempotency-Key was used for another request"


@dataclass(frozen=True, slots=True)
class Reply:
    """A command's reply as it is sent and stored."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def response(self, *, replayed: bool = False) -> Response:
        """The HTTP response; `replayed` says that it answers a repeated request."""
        headers = self.headers | ({"idempotency-replayed": "true"} if replayed else {})
        return Response(self.body, self.status, headers, media_type="application/json" if self.body else None)


class Key:
    """The key of a request whose body may not have been read yet. Raises InvalidIdempotencyKey."""

    def __init__(self, key: str, request: Request) -> None:
        if not _KEY.fullmatch(key):
            raise InvalidIdempotencyKey("Idempotency-Key must be 1 to 255 printable ASCII characters")
        self.value = key
        self._request = request

    async def of_body(self, body_sha256: bytes | None) -> "KeyedRequest":
        """The key, bound to the method, the path with its query, and the body.

        Without `body_sha256`, it reads the body.
        """
        request = self._request
        route = f"{request.method} {request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
        return KeyedRequest(
            key=self.value,
            route=route.removesuffix("?"),
            body_sha256=body_sha256 or hashlib.sha256(await request.body()).digest(),
        )


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request and its key, which is bound to the agency, to `route`, and to the body."""

    key: str
    route: str
    body_sha256: bytes

    def lock(self, agency_id: str) -> Lock:
        """The statement that takes the locks and reads the reply stored under the key."""
        return Lock("select * from lock_for_request($1, $2, $3, $4, $5)", (agency_id, self.key))

    def reply(self, uow: UnitOfWork) -> Reply | None:
        """The reply stored under the key, if any. Raises IdempotencyMismatch if it belongs to another request."""
        (row,) = uow.found
        if row["status"] is None:
            return None
        if row["route"] != self.route:
            raise IdempotencyMismatch(f"Idempotency-Key {self.key!r} was used for {row['route'][:200]}")
        if row["body_sha256"] != self.body_sha256:
            raise IdempotencyMismatch(f"Idempotency-Key {self.key!r} was used with a different body")
        return Reply(row["status"], row["body"], json.loads(row["headers"]))

    def keep(self, uow: UnitOfWork, agency_id: str, reply: Reply) -> None:
        """Store the reply in the unit of work's transaction."""
        uow.writes.add_row(
            _KEEP,
            agency_id,
            self.key,
            self.route,
            self.body_sha256,
            reply.status,
            json.dumps(reply.headers),
            reply.body,
            uow.now,
        )


async def find_reply(connection: Connection, agency_id: str, key: str) -> Reply | None:
    """The reply stored under a key, if any, without comparing the request."""
    row = await connection.fetchrow(
        """
        select status, headers, body
        from idempotency
        where agency_id = $1 and key = $2
        """,
        agency_id,
        key,
    )
    return None if row is None else Reply(row["status"], row["body"], json.loads(row["headers"]))


def retention(days: int) -> Retention:
    """The retention of stored replies, in days."""
    return rows_since("idempotency", "recorded_at", timedelta(days=days))
