"""Errors that every service shares. Retrying helps with a RetryableError, never with a PermanentError."""

import json
from typing import Any, ClassVar

import asyncpg
from pydantic import ValidationError


class RetryableError(Exception):
    """Something outside is unavailable for now; the same work may succeed later."""


class ClockSkewed(RetryableError):
    """This process's clock and that of its database disagree: what it wrote would be dated wrongly."""


class PermanentError(Exception):
    """The work is refused whatever happens; over HTTP it becomes a problem (RFC 9457).

    A service's errors are subclasses that set the status, the slug (the end of the problem's type)
    and the title; `detail` says what happened, in one sentence that names the value and the rule.
    """

    status: ClassVar[int] = 409
    slug: ClassVar[str] = "conflict"
    title: ClassVar[str] = "The current state does not allow this"

    def __init__(self, detail: str, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extensions = extensions


class InvalidInput(PermanentError):
    """A value breaks a rule: `field` is its name, `value` what was given, `rule` what it must be."""

    status = 422
    slug = "invalid-input"
    title = "The input is invalid"

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(
            f"{field}: {shown(value)} is invalid: {rule}",
            errors=[{"field": field, "value": as_text(value), "rule": rule}],
        )


# How much of a value an error shows, in characters.
_SHOWN = 200


def as_text(value: object) -> str:
    """The beginning of a value that is refused; what is no text in JSON is as JSON has it."""
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
    """A value as a sentence quotes it."""
    return repr(as_text(value)) if isinstance(value, str) else as_text(value)


class NotFound(PermanentError):
    """There is no such thing, or it is another tenant's."""

    status = 404
    slug = "not-found"
    title = "Not found"


class TooManyRequests(PermanentError):
    """The process accepts no more at once; the same request may be sent again a moment later."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class Conflict(PermanentError):
    """The thing is in a state that does not allow the command."""


class PreconditionFailed(PermanentError):
    """The thing was edited since the caller read it: the version that it expects is not the current one."""

    status = 412
    slug = "precondition-failed"
    title = "The resource has changed since it was read"


def describe(error: BaseException) -> str:
    """An error's type and message, without what the message quotes of a row or an input."""
    name = type(error).__name__
    if isinstance(error, asyncpg.DataError):  # its very message quotes the value
        return f"{name} ({error.sqlstate})"
    if isinstance(error, asyncpg.PostgresError):
        return f"{name} ({error.sqlstate}): {error.args[0]}"
    if isinstance(error, ValidationError):
        places = (".".join(map(str, e["loc"])) + f" {e['type']}" for e in error.errors(include_input=False))
        return f"{name}: {error.title}: {'; '.join(places)}"
    return f"{name}: {error}" if str(error) else name
