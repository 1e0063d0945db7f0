"""Errors that all services share. Retrying can fix a RetryableError, never a PermanentError."""

import json
from datetime import date, datetime
from typing import Any, ClassVar, Literal

import asyncpg
from pydantic import ValidationError


class RetryableError(Exception):
    """Something outside the process is unavailable for now; the same work may succeed later."""


class ClockSkewed(RetryableError):
    """This process's clock and its database's disagree, so anything it wrote would have a wrong time."""


class PermanentError(Exception):
    """The work is refused permanently; over HTTP, the error becomes a problem (RFC 9457).

    A service's errors are subclasses that set the status, the slug (the end of the problem's type), and the title.
    `detail` says what happened, in one sentence that names the value and the rule.
    """

    status: ClassVar[int] = 409
    slug: ClassVar[str] = "conflict"
    title: ClassVar[str] = "The current state does not allow this"

    def __init__(self, detail: str, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extensions = extensions


class InvalidInput(PermanentError):
    """A value breaks a rule: `field` is its name, `value` the given value, and `rule` what it must be."""

    status = 422
    slug = "invalid-input"
    title = "The input is invalid"

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(
            f"{field}: {shown(value)} is invalid: {rule}",
            errors=[{"field": field, "value": as_text(value), "rule": rule}],
        )
        self.field = field
        self.rule = rule


# How much of a value an error shows, in characters.
_SHOWN = 200


def rfc3339(instant: datetime) -> str:
    """An instant as replies write it: UTC with a Z."""
    return instant.isoformat().replace("+00:00", "Z")


def as_text(value: object) -> str:
    """The beginning of a refused value as text. Objects, lists, Booleans, and null are shown as JSON."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")[:_SHOWN]
    in_json = value is None or isinstance(value, dict | list | tuple | bool)
    if not in_json:
        return str(value)[:_SHOWN]
    beginning = ""
    for part in json.JSONEncoder(default=str).iterencode(value):
        beginning += part
        if len(beginning) >= _SHOWN:
            break
    return beginning[:_SHOWN]


def shown(value: object) -> str:
    """A value as it is quoted in a sentence."""
    return repr(as_text(value)) if isinstance(value, str | bytes | date) else as_text(value)


class MalformedJson(PermanentError):
    """The body is not JSON."""

    status = 400
    slug = "malformed-json"
    title = "The body is not JSON"

    def __init__(self, place: int, fault: str, *, unit: Literal["character", "byte"] = "character") -> None:
        super().__init__(f"at {unit} {place}: {fault}")


class NotFound(PermanentError):
    """The resource does not exist, or it is another tenant's."""

    status = 404
    slug = "not-found"
    title = "Not found"


class TooManyRequests(PermanentError):
    """The process accepts no more for now; the same request may be sent again a moment later."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class Conflict(PermanentError):
    """The resource's state does not allow the command."""


class PreconditionFailed(PermanentError):
    """The resource has changed since the caller read it: the version in If-Match is not the current one."""

    status = 412
    slug = "precondition-failed"
    title = "The resource has changed since it was read"


def describe(error: BaseException) -> str:
    """An error's type and message, without what the message quotes from a row or an input."""
    name = type(error).__name__
    if isinstance(error, asyncpg.DataError):  # even its message quotes the value
        return f"{name} ({error.sqlstate})"
    if isinstance(error, asyncpg.PostgresError):
        return f"{name} ({error.sqlstate}): {error.args[0]}"
    if isinstance(error, ValidationError):
        places = (".".join(map(str, e["loc"])) + f" {e['type']}" for e in error.errors(include_input=False))
        return f"{name}: {error.title}: {'; '.join(places)}"
    return f"{name}: {error}" if str(error) else name
