"""What every request keeps to: no query parameter that its route does not know, and a body of the route's type."""

from typing import Any

from fastapi import Request

from muster_runtime.errors import InvalidInput, PermanentError

JSON = "application/json"


class UnsupportedMediaType(PermanentError):
    """The body's type is missing, or is not one that the route takes."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


def media_type(request: Request) -> str:
    """The request's Content-Type without its parameters, in small letters; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_rules(request: Request) -> None:
    """Check a request that has been let in. Raises InvalidInput and UnsupportedMediaType."""
    route = request.scope.get("fastapi", {}).get("effective_route_context") or request.scope["route"]
    if request.query_params:
        _refuse_unknown(request, route)
    _refuse_other_type(request, route)


def _refuse_unknown(request: Request, route: Any) -> None:
    known = sorted(_query_names(route.dependant))
    for name, value in request.query_params.items():
        if name not in known:
            knows = f"those of this route are {', '.join(known)}" if known else "this route has none"
            raise InvalidInput(name[:100], value[:100], f"unknown query parameter; {knows}")


def _query_names(dependant: Any) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_query_names(each) for each in dependant.dependencies))


def _refuse_other_type(request: Request, route: Any) -> None:
    """A file is declared by the route's own OpenAPI; any other body is JSON."""
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
