"""The reply to a command is kept under its Idempotency-Key, by the very transaction that carries it out.

The row is read after the agency's lock was taken, so of many requests at once the first does the work and the
others find its reply. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace

from fastapi import Request

from muster_runtime.db import UnitOfWork
from muster_runtime.errors import PermanentError

_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class InvalidIdempotencyKey(PermanentError):
    """The header is not a key."""

    status = 400
    slug = "invalid-idempotency-key"
    title = "The Idempotency-Key is not valid"


class IdempotencyMismatch(PermanentError):
    """The key was used for another request."""

    status = 422
    slug = "idempotency-mismatch"
    title = "The Idempotency-Key belongs to another request"


@dataclass(frozen=True, slots=True)
class Reply:
    """A command's answer as it is sent and kept."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key: the key is bound to the agency, to `route` and to the body."""

    key: str
    route: str
    body_sha256: bytes

    @classmethod
    async def of(cls, request: Request, key: str) -> "KeyedRequest":
        """Read a request's key, method, path with query, and body; raises InvalidIdempotencyKey."""
        if not _KEY.fullmatch(key):
            raise InvalidIdempotencyKey("Idempotency-Key: a key is 1 to 255 printable ASCII characters")
        route = f"{request.method} {request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
        return cls(key, route.removesuffix("?"), hashlib.sha256(await request.body()).digest())

    def part(self, number: int) -> "KeyedRequest":
        """The key of one of the request's several transactions, from 0; no caller can write its separator."""
        return replace(self, key=f"{self.key}\x1f{number}") if number else self

    async def find(self, uow: UnitOfWork, agency_id: str) -> Reply | None:
        """The reply kept under the key, if any; raises IdempotencyMismatch where it answers another request."""
        row = await uow.connection.fetchrow(
            """
            select route, body_sha256, status, headers, body
            from idempotency
            where agency_id = $1 and key = $2
            """,
            agency_id,
            self.key,
        )
        if row is None:
            return None
        if row["route"] != self.route:
            raise IdempotencyMismatch(f"Idempotency-Key {self.key!r} was used for {row['route'][:200]}")
        if row["body_sha256"] != self.body_sha256:
            raise IdempotencyMismatch(f"Idempotency-Key {self.key!r} was used with another body")
        return Reply(row["status"], row["body"], json.loads(row["headers"]))

    async def keep(self, uow: UnitOfWork, agency_id: str, reply: Reply) -> None:
        """Keep the reply with the unit of work."""
        await uow.connection.execute(
            """
            insert into idempotency (agency_id, key, route, body_sha256, status, headers, body, recorded_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8)
            """,
            agency_id,
            self.key,
            self.route,
            self.body_sha256,
            reply.status,
            json.dumps(reply.headers),
            reply.body,
            uow.now,
        )
