"""Turns errors into problem details (RFC 9457). Internals are never exposed: an unexpected error is a bare 500."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPMethod, HTTPStatus
from typing import Any

import asyncpg
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from muster_runtime.database.schema import MigrationsPending
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.errors import MalformedJson, PermanentError, TooManyRequests, as_text, shown
from muster_runtime.http.identity import Forbidden, Unauthenticated
from muster_runtime.http.tenancy import PreconditionRequired
from muster_runtime.plain_rules import plain_rule

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = 1

# A request can break many rules; at most this many are listed.
MAX_ERRORS = 50

# Where FastAPI reports a missing If-Match header.
_IF_MATCH = ("header", "if-match")

# The errors of Postgres for text with U+0000, which JSON allows but a text column does not.
_BAD_TEXT = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


# The framework's and the middleware's errors, with slug and title. Any other status is named by its number.
_HTTP = {
    400: ("bad-request", "The request is invalid"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed for this path"),
    408: ("request-timeout", "The body arrived too slowly"),
    413: ("body-too-large", "The body is too large"),
    414: ("address-too-long", "The URL is too long"),
    429: (TooManyRequests.slug, TooManyRequests.title),
    431: ("headers-too-large", "The headers are too large"),
}

# The schema of a problem for the OpenAPI document: RFC 9457, 3.1, with two members of our own.
SCHEMA = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "title", "status", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:muster:problem:invalid-input"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string", "description": "The request's ID in the logs."},
        "errors": {
            "type": "array",
            "description": "Each invalid value.",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {
                    "field": {"type": "string"},
                    "value": {"type": ["string", "null"]},
                    "rule": {"type": "string"},
                },
            },
        },
    },
}


async def answer(request: Request, error: Exception) -> Response:
    """Turn an error into its response. Only an unexpected error is logged as an error."""
    match error:
        case PermanentError():
            return _refusal(request, error)
        case RequestValidationError():
            return _invalid_request(request, error)
        case HTTPException():
            return _http_problem(request, error)
        case _ if isinstance(error, _BAD_TEXT):
            return _problem(
                request, 422, "invalid-input", "The input is invalid", "text must not contain the character U+0000"
            )
        case MigrationsPending():
            advice = "The database lacks a migration that this request needs. Try again when the service is ready."
            return _unavailable(request, error, "migrations-pending", "The service is being upgraded", advice)
        case _ if isinstance(error, RETRYABLE):
            return _unavailable(request, error, "unavailable", "The service is temporarily unavailable", "Try again.")
    log.error("request_failed", exc_info=error)
    return _problem(request, 500, "internal-error", "Internal error", "Search the logs for the request_id.")


def _refusal(request: Request, error: PermanentError) -> Response:
    headers = _headers(request, error)
    return _problem(request, error.status, error.slug, error.title, error.detail, error.extensions, headers)


def _unavailable(request: Request, error: Exception, slug: str, title: str, advice: str) -> Response:
    log.warning("retryable_request_failed", exc_info=error)
    detail = f"{advice} With the same Idempotency-Key, a command runs only once, even if this attempt succeeded."
    return _problem(request, 503, slug, title, detail, headers={"retry-after": str(RETRY_AFTER_SECONDS)})


def _problem(
    request: Request,
    status: int,
    slug: str,
    title: str,
    detail: str | None = None,
    extensions: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    request.state.problem = slug  # for the access log
    body = {
        "type": f"urn:muster:problem:{slug}",
        "title": title,
        "status": status,
        **({} if detail is None else {"detail": detail}),
        "request_id": request.state.request_id,
        **(extensions or {}),
    }
    # ASCII only: quoted input may contain half a surrogate pair, which UTF-8 cannot encode.
    return Response(json.dumps(body, default=str), status, dict(headers or {}), MEDIA_TYPE)


def _http_problem(request: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    slug, title = _HTTP.get(error.status_code, (f"http-{error.status_code}", phrase))
    detail = None if error.detail == phrase else error.detail
    headers = (
        {"allow": ", ".join(_methods(request))} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    )
    return _problem(request, error.status_code, slug, title, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods that the path supports (RFC 9110, 15.5.6). The framework returns only those of its first route."""
    routes: Sequence[BaseRoute] = request.app.routes
    return [
        method
        for method in HTTPMethod
        if any(route.matches({**request.scope, "method": method.value})[0] is Match.FULL for route in routes)
    ]


def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    errors: Sequence[Mapping[str, Any]] = error.errors()
    if errors[0]["type"] == "json_invalid":
        return _refusal(request, MalformedJson(errors[0]["loc"][-1], errors[0]["ctx"]["error"]))
    if any(error["type"] == "missing" and error["loc"] == _IF_MATCH for error in errors):
        rule = "If-Match is missing: read the resource and send its ETag as If-Match"
        return _refusal(request, PreconditionRequired(rule))
    # If all items of a list are invalid, pydantic also reports that the list is too short.
    around = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    errors = [error for error in errors if error["loc"] not in around]
    broken = [_field_error(e) for e in errors[:MAX_ERRORS]]
    first = broken[0]
    given = "" if first["value"] is None else f" {shown(errors[0]['input'])} is invalid:"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{first['field']}:{given} {first['rule']}{more}"
    return _problem(request, 422, "invalid-input", "The input is invalid", detail, {"errors": broken})


def _field_error(error: Mapping[str, Any]) -> dict[str, Any]:
    source, *path = error["loc"]
    of_all = error["type"] == "value_error" and isinstance(error["input"], dict)  # the error names the fields concerned
    value = None if error["type"] == "missing" or of_all else as_text(error["input"])
    return {"field": ".".join(map(str, path)) or source, "value": value, "rule": plain_rule(error)}


def _headers(request: Request, error: PermanentError) -> dict[str, str]:
    """The header WWW-Authenticate (RFC 6750, 3) or Retry-After (RFC 6585, 4), if one applies."""
    match error:
        case TooManyRequests():
            return {"retry-after": str(RETRY_AFTER_SECONDS)}
        case Unauthenticated() if "authorization" in request.headers:
            challenge = 'Bearer realm="muster", error="invalid_token"'
        case Unauthenticated():
            challenge = 'Bearer realm="muster"'
        case Forbidden():
            challenge = f'Bearer realm="muster", error="insufficient_scope", scope="{error.extensions["scope"]}"'
        case _:
            return {}
    return {"www-authenticate": challenge}
