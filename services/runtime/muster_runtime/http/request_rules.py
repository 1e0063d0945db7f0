"""The rules for every request: each query parameter at most once, a body of the right type, and nothing unknown."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from muster_contracts import Instant
from muster_runtime.errors import InvalidInput, PermanentError
from muster_runtime.text import SHORTEST_REASON, check_reason

JSON = "application/json"


_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:")


def _written(value: object) -> object:
    """Accept only text as an instant. Pydantic would also read a number, as seconds or milliseconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and _INSTANT.match(value)):
        return value
    raise ValueError("must be an instant such as 2025-08-06T00:00:00Z")


# An instant in a request, as RFC 3339 writes it.
WrittenInstant = Annotated[Instant, BeforeValidator(_written)]

# A person's reason for a decision, stored in the audit trail.
WrittenReason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=SHORTEST_REASON, max_length=1000),
    AfterValidator(check_reason),
]

# A shorter reason of one line, as in events.
ReasonLine = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=SHORTEST_REASON, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
    AfterValidator(check_reason),
]


class RequestBody(BaseModel):
    """A request's body, or a part of it. An unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UnsupportedMediaType(PermanentError):
    """The body's type is missing or not supported by the route."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


def media_type(request: Request) -> str:
    """The request's Content-Type without parameters, in lower case; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_coding(request: Request) -> None:
    """Check that the body is not compressed: a few kilobytes could decompress to gigabytes (RFC 9110, 15.5.16).

    FastAPI reads a body before it checks anything else. Raises UnsupportedMediaType.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {coding[:100]!r} is not supported: send the body unencoded")


def check_rules(request: Request) -> None:
    """Check an admitted request. Raises InvalidInput and UnsupportedMediaType."""
    route = request.scope.get("fastapi", {}).get("effective_route_context") or request.scope["route"]
    if request.query_params:
        _refuse_unknown_or_repeated(request, route)
    _refuse_other_type(request, route)


def _refuse_unknown_or_repeated(request: Request, route: Any) -> None:
    """Refuse unknown or repeated parameters: no route takes a list, and a proxy might use another of the values."""
    known = sorted(_query_names(route.dependant))
    seen = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            knows = f"the route's parameters are {', '.join(known)}" if known else "the route has no parameters"
            raise InvalidInput(name[:100], value[:100], f"must be left out: {knows}")
        if name in seen:
            raise InvalidInput(name, value[:100], "must be given only once")
        seen.add(name)


def _query_names(dependant: Any) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_query_names(each) for each in dependant.dependencies))


def _refuse_other_type(request: Request, route: Any) -> None:
    """Refuse a body of the wrong type. A route that takes a file declares it in its OpenAPI; any other body is JSON."""
    given = media_type(request)
    if declared := (route.openapi_extra or {}).get("requestBody"):
        taken = list(declared["content"])
        fits = given in taken
    else:
        taken = [JSON]
        fits = not (route.body_field and _has_body(request)) or given == JSON or given.endswith("+json")
    if not fits:
        state = f"{given[:100]!r} is not supported" if given else "is missing"
        raise UnsupportedMediaType(f"Content-Type {state}: send {' or '.join(taken)}")


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
