"""Who may use which route: each declares its scope, and whether only the program may use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security, params
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes

from muster_runtime.errors import NotFound
from muster_runtime.http.identity import Forbidden, Identity, ProgramOnly
from muster_runtime.http.request_rules import check_rules
from muster_runtime.identifiers import EVERY_AGENCY

PUBLIC_PATHS = frozenset(
    {
        *("/", "/docs", "/docs/redoc.standalone.js", "/openapi.json"),
        *("/health/live", "/health/ready", "/health/serving", "/metrics"),
    }
)

_BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", scheme_name="oidc")


async def _identify(
    request: Request, needed: SecurityScopes, _documented: Annotated[object, Depends(_BEARER)]
) -> Identity:
    """The caller, who has the scopes of the route and may act for the agency that its path names.

    The request's parameters and body are validated only after that.
    """
    identity: Identity = request.state.identity
    _check_scopes(identity, needed.scopes)
    agency_id = request.path_params.get("agency_id")
    if agency_id is not None and not identity.may_act_for(agency_id):
        raise NotFound(f"there is no agency {agency_id[:40]!r}")
    check_rules(request)
    return identity


async def _identify_officer(
    request: Request, needed: SecurityScopes, _documented: Annotated[object, Depends(_BEARER)]
) -> Identity:
    """The caller, who has the scopes of the route and acts for all agencies."""
    _check_program(request.state.identity, needed.scopes)
    return await _identify(request, needed, _documented)


def _check_program(identity: Identity, needed: Sequence[str]) -> None:
    if not identity.is_program:
        agencies = identity.tenant if len(identity.agencies) == 1 else f"{len(identity.agencies)} agencies"
        raise ProgramOnly(
            f'the token is limited to {agencies}; this needs a token whose `agency` claim is "{EVERY_AGENCY}"',
            scope=" ".join(needed),
        )


def check_access(request: Request, identity: Identity, route: str) -> None:
    """Raise Forbidden or ProgramOnly unless the caller may use a route of the application, such as `GET /v1/notes`.

    A route that only an earlier release had requires the right to operate the service, for all agencies.
    """
    known = {f"{access.method} {access.path}": access for access in access_to(request.app)}
    operate = f"{request.app.state.runtime.service.name}:operate"
    access = known.get(route, Access(path=route, method="", scopes=(operate,), program_only=True))
    if access.program_only:
        _check_program(identity, access.scopes)
    _check_scopes(identity, access.scopes)


def _check_scopes(identity: Identity, needed: Sequence[str]) -> None:
    missing = sorted(set(needed) - identity.scopes)
    if missing:
        raise Forbidden(f"the token lacks the scope {missing[0]}", scope=" ".join(needed))


# The caller, whom the middleware has let in.
IdentityDep = Annotated[Identity, Security(_identify)]


def requires(scope: str) -> params.Security:
    """Declare the scope that a route needs: `dependencies=[requires("enrollment:write")]`.

    A token for agencies can use the route for those only.
    """
    return params.Security(_identify, scopes=[scope])


def requires_program(scope: str) -> params.Security:
    """Declare a scope that only the program has: the route requires a token for all agencies."""
    return params.Security(_identify_officer, scopes=[scope])


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """Who may use a route. Without scopes, anyone may, without a token."""

    path: str
    method: str
    scopes: tuple[str, ...]
    program_only: bool


def access_to(app: FastAPI) -> list[Access]:
    """The access to each route, sorted by path. Raises ValueError if a route that is not public has no scope."""
    found = []
    for route in app.routes:
        assert isinstance(route, APIRoute)
        path = route.path
        declared = [
            dependency
            for dependency in route.dependencies
            if isinstance(dependency, params.Security) and dependency.dependency in (_identify, _identify_officer)
        ]
        if bool(declared) == (path in PUBLIC_PATHS):
            raise ValueError(f"{path} must be public or declare a scope, and not both")
        scopes = tuple(scope for dependency in declared for scope in dependency.scopes or ())
        program_only = any(dependency.dependency is _identify_officer for dependency in declared)
        methods = (route.methods or set()) - {"HEAD"}
        found += [Access(path, method, scopes, program_only) for method in methods]
    return sorted(found)
