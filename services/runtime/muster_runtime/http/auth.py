"""Who the caller is, and what the caller may do: OIDC bearer tokens, scopes, the agency claim.

Sources: RFC 6750 (bearer tokens), RFC 7519 (JWT), RFC 8725 (JWT best practices), RFC 8693 4.2 (the claim `scope`).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security, params
from fastapi.routing import iter_route_contexts
from fastapi.security import HTTPBearer, SecurityScopes
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from muster_contracts import is_agency_id
from muster_runtime.clock import Clock
from muster_runtime.database.transactions import EVERY_AGENCY
from muster_runtime.errors import NotFound, PermanentError
from muster_runtime.http.keys import KeySource
from muster_runtime.http.request_rules import check_rules

# Asymmetric signatures alone: without `none` and HS*, a public key can never pass for a shared secret.
ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "ES384", "PS256", "PS384", "RS256", "RS384", "RS512")

# How far the issuer's clock and ours may differ.
LEEWAY = timedelta(seconds=30)

MAX_TOKEN_LENGTH = 8 * 1024

PUBLIC_PATHS = frozenset(
    {"/", "/docs", "/docs/redoc.standalone.js", "/health/live", "/health/ready", "/metrics", "/openapi.json"}
)

_BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", scheme_name="oidc")


class Unauthenticated(PermanentError):
    """There is no valid token. The answer does not say which check failed."""

    status = 401
    slug = "unauthenticated"
    title = "A valid bearer token is required"


class Forbidden(PermanentError):
    """The token lacks a required scope."""

    status = 403
    slug = "insufficient-scope"
    title = "The token lacks a required scope"


class ProgramOnly(Forbidden):
    """The route is for the program's officers, and the token acts for one agency."""

    slug = "program-only"
    title = "This requires a token for all agencies"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the token's subject and scopes, and the one agency it acts for (EVERY_AGENCY: the program)."""

    actor: str
    scopes: frozenset[str]
    agency: str

    def may_act_for(self, agency_id: str) -> bool:
        """Whether an agency is the caller's own, or the caller acts for all of them."""
        return self.agency in (EVERY_AGENCY, agency_id)

    def admit(self, agency_id: str) -> None:
        """Raise NotFound if the agency is not the caller's: other tenants do not exist for the caller."""
        if not is_agency_or_all(agency_id) or not self.may_act_for(agency_id):
            raise NotFound(f"there is no agency {agency_id[:40]!r}")


def is_agency_or_all(text: str) -> bool:
    """Whether a text is an agency's id, as far as its form goes, or EVERY_AGENCY."""
    return text == EVERY_AGENCY or is_agency_id(text)


class TokenVerifier:
    """Turns a bearer token into an Identity.

    `clock` is the machine's even in a sandbox, whose tokens are issued in real time.
    """

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, clock: Clock) -> None:
        if not issuer or not audience:
            raise ValueError("MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verify(self, authorization: str | None) -> Identity:
        """The identity behind an Authorization header.

        Raises Unauthenticated, and RetryableError if the issuer's keys are not available.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the request has no Authorization header with a bearer token")
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"the bearer token is longer than {MAX_TOKEN_LENGTH} characters")
        try:
            kid = jws.extract_compact(token.encode()).headers().get("kid")
            return _identity(self._claims(token, await self._keys.holding(kid)))
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            raise Unauthenticated("the bearer token is invalid") from error

    def _claims(self, token: str, keys: KeySet) -> dict[str, Any]:
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        jwt.JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=int(LEEWAY.total_seconds()),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        ).validate(claims)
        return claims


def _identity(claims: dict[str, Any]) -> Identity:
    """The identity that verified claims state. A token acts for all agencies only if it says so."""
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise Unauthenticated("the token's claim `scope` is not a string of scopes separated by spaces")
    agency = claims.get("agency")
    if not (isinstance(agency, str) and is_agency_or_all(agency)):
        state = "is invalid" if "agency" in claims else "is missing"
        raise Unauthenticated(
            f"the token's claim `agency` {state}: it must be an agency's ID, or \"{EVERY_AGENCY}\" for all agencies"
        )
    return Identity(claims["sub"], frozenset(scope.split()), agency)


async def _identify(
    request: Request, needed: SecurityScopes, _documented: Annotated[object, Depends(_BEARER)]
) -> Identity:
    """The caller, who has the scopes of the route and may act for the agency that its path names.

    The request's parameters and body are validated only after that.
    """
    identity: Identity = request.state.identity
    missing = sorted(set(needed.scopes) - identity.scopes)
    if missing:
        raise Forbidden(f"the token lacks the scope {missing[0]}", scope=" ".join(needed.scopes))
    agency_id = request.path_params.get("agency_id")
    if agency_id is not None and not identity.may_act_for(agency_id):
        raise NotFound(f"there is no agency {agency_id[:40]!r}")
    check_rules(request)
    return identity


async def _identify_officer(
    request: Request, needed: SecurityScopes, _documented: Annotated[object, Depends(_BEARER)]
) -> Identity:
    """The caller, who has the scopes of the route and acts for all agencies."""
    identity: Identity = request.state.identity
    if identity.agency != EVERY_AGENCY:
        raise ProgramOnly(
            f'the token is limited to {identity.agency}; this needs a token whose `agency` claim is "{EVERY_AGENCY}"',
            scope=" ".join(needed.scopes),
        )
    return await _identify(request, needed, _documented)


# The caller, whom the middleware has let in.
IdentityDep = Annotated[Identity, Security(_identify)]


def requires(scope: str) -> params.Security:
    """Declare the scope that a route needs: `dependencies=[requires("enrollment:write")]`.

    A token for one agency can use the route for that agency only.
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
    for route in iter_route_contexts(app.routes):
        path = route.path or ""
        declared = [
            dependency
            for dependency in getattr(route, "dependencies", ())
            if isinstance(dependency, params.Security) and dependency.dependency in (_identify, _identify_officer)
        ]
        if bool(declared) == (path in PUBLIC_PATHS):
            raise ValueError(f"{path} must be public or declare a scope, and not both")
        scopes = tuple(scope for dependency in declared for scope in dependency.scopes or ())
        program_only = any(dependency.dependency is _identify_officer for dependency in declared)
        methods = (route.methods or set()) - {"HEAD"}
        found += [Access(path, method, scopes, program_only) for method in methods]
    return sorted(found)
