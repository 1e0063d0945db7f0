"""Builds the error responses of routes in the OpenAPI document from the errors that a handler raises."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from muster_runtime.errors import InvalidInput, MalformedJson, NotFound, PermanentError, TooManyRequests
from muster_runtime.http.idempotency import IdempotencyMismatch, InvalidIdempotencyKey
from muster_runtime.http.identity import Forbidden, ProgramOnly, ReasonRequired, Unauthenticated
from muster_runtime.http.problems import MEDIA_TYPE, SCHEMA
from muster_runtime.http.rate_limits import QuotaExceeded
from muster_runtime.http.request_rules import UnsupportedMediaType

Responses = dict[int | str, dict[str, Any]]


def problem_responses(*errors: type[PermanentError]) -> Responses:
    """The responses for a route that can raise these errors: one per status, with the slug of each problem."""
    slugs: dict[int, dict[str, str]] = {}
    for error in errors:
        slugs.setdefault(error.status, {})[error.slug] = error.title
    return {status: _response(status, titles) for status, titles in sorted(slugs.items())}


def _response(status: int, titles: Mapping[str, str]) -> dict[str, Any]:
    problems = "; ".join(f"`{slug}` ({title})" for slug, title in titles.items())
    return {
        "description": f"{HTTPStatus(status).phrase}: {problems}.",
        "content": {MEDIA_TYPE: {"schema": SCHEMA}},
    }


# What any route that needs a token can answer; each router passes these on to its routes.
COMMON: Responses = {
    "default": {"description": "A problem (RFC 9457).", "content": {MEDIA_TYPE: {"schema": SCHEMA}}},
    400: _response(
        400,
        {
            "bad-request": "A header is repeated or missing, or the body is not in a form that a service accepts",
            MalformedJson.slug: MalformedJson.title,
            InvalidIdempotencyKey.slug: InvalidIdempotencyKey.title,
        },
    ),
    **problem_responses(
        Unauthenticated,
        Forbidden,
        ProgramOnly,
        ReasonRequired,
        NotFound,
        UnsupportedMediaType,
        InvalidInput,
        IdempotencyMismatch,
        TooManyRequests,
        QuotaExceeded,
    ),
}
COMMON[503] = _response(503, {"unavailable": "A dependency is unavailable; retry the request after `Retry-After`"})
