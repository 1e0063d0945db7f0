"""Verifies bearer tokens and reads the caller from them.

Sources: RFC 6750 (bearer tokens), RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (JWT best practices), RFC 8693 4.2 (the
claim `scope`), RFC 9068 (access tokens as JWTs).
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from muster_contracts import is_agency_id
from muster_runtime.clock import Clock
from muster_runtime.http.identity import Identity, ReasonRequired, Unauthenticated
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles, with_implied
from muster_runtime.identifiers import EVERY_AGENCY

# Asymmetric signatures only: without `none` and HS*, a public key can never be used as a shared secret.
ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "ES384", "PS256", "PS384", "RS256", "RS384", "RS512")

# How far the issuer's clock and ours may differ.
LEEWAY = timedelta(seconds=30)

MAX_TOKEN_LENGTH = 8 * 1024

# OpenID Connect Core 2.
MAX_SUBJECT_LENGTH = 255

# A department and its bureaus.
MAX_AGENCIES = 50

# How many tokens' signatures are cached as verified, until the keys change: verifying costs more than all other checks.
MOST_VERIFIED = 1_000

BREAK_GLASS_LIFETIME = timedelta(hours=1)

REASON_HEADER = "Muster-Reason"
_REASON = re.compile(r"[\x20-\x3f\x41-\x7e]{10,500}")  # without @

# The `typ` of an access token: RFC 9068, 2.1, and the older form. ID tokens and logout tokens are not access tokens.
_TYPES = frozenset({"jwt", "at+jwt"})

# Claims that only an ID token has: OpenID Connect Core 2, 3.3.2.11.
_ID_TOKENS_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})


class TokenVerifier:
    """Turns a bearer token into an Identity.

    `clock` is the real clock even in a sandbox, where tokens are also issued in real time.
    """

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, clock: Clock, roles: Roles) -> None:
        if not issuer or not audience:
            raise ValueError("MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._roles = roles
        self._verified_by: KeySet | None = None
        self._verified_claims: Callable[[str], Mapping[str, Any]]

    async def verify(self, authorization: str | None, reason: str | None = None) -> Identity:
        """The identity behind an Authorization header; `reason` is the Muster-Reason header.

        Raises Unauthenticated, ReasonRequired, and RetryableError if the issuer's keys are not available.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the request has no Authorization header with a bearer token")
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"the bearer token is longer than {MAX_TOKEN_LENGTH} characters")
        try:
            header = _header(token)
            claims = self._claims(token, await self._keys.holding(header.get("kid")))
            self._check(header, claims)
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            raise Unauthenticated("the bearer token is invalid") from error
        return self._identity(claims, reason)

    def _claims(self, token: str, keys: KeySet) -> Mapping[str, Any]:
        if keys is not self._verified_by:
            self._verified_claims = lru_cache(MOST_VERIFIED)(partial(_claims, keys=keys))
            self._verified_by = keys
        return self._verified_claims(token)

    def _check(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
        JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=int(LEEWAY.total_seconds()),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        ).validate(dict(claims))
        # The subject is stored in the audit trail and in logs, so it must be printable and no longer than OpenID
        # allows.
        if len(claims["sub"]) > MAX_SUBJECT_LENGTH or not claims["sub"].isprintable() or not claims["sub"].strip():
            raise ValueError("the claim sub is too long, blank, or has characters that cannot be printed")
        if _type(header) != "at+jwt" and (found := _ID_TOKENS_CLAIMS & claims.keys()):
            raise ValueError(f"the claim {min(found)} is of an ID token")

    def _identity(self, claims: Mapping[str, Any], reason: str | None) -> Identity:
        """The identity in verified claims. A token acts for all agencies only if it says so."""
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise Unauthenticated("the token's claim `scope` is not a string of scopes separated by spaces")
        agencies = _agencies(self._roles.agency_claim, self._roles.agency_in(claims))
        scopes = frozenset(scope.split()) | self._roles.scopes(claims, program=EVERY_AGENCY in agencies)
        if not self._roles.breaks_glass(claims):
            return Identity(claims["sub"], with_implied(scopes), agencies)
        _check_break_glass(claims, agencies)
        if reason is None or not _REASON.fullmatch(reason):
            raise ReasonRequired(
                f"{REASON_HEADER} {'is missing' if reason is None else 'is invalid'}: with a break-glass token, "
                "a request must state why in this header, in 10 to 500 printable ASCII characters without @"
            )
        return Identity(claims["sub"], with_implied(scopes | self._roles.break_glass_scopes), agencies, reason)


def _header(token: str) -> Mapping[str, Any]:
    """The header of a token, if the token could be valid. Raises ValueError.

    The header never says where to find a key: `jku`, `jwk`, `x5u`, and `x5c` are not read (RFC 8725, 3.10).
    """
    encoded = token.partition(".")[0]
    header = _object(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    if header.get("alg") not in ALGORITHMS:
        raise ValueError("the algorithm is not one of those allowed")
    if not isinstance(header.get("kid", ""), str):
        raise ValueError("kid is not a string")
    if "crit" in header:
        raise ValueError("crit names an extension, and none is understood")
    if _type(header) not in _TYPES:
        raise ValueError("typ is not that of an access token")
    return header


def _type(header: Mapping[str, Any]) -> str:
    """The media type without `application/`, which is optional (RFC 7515, 4.1.9). Raises ValueError."""
    declared = header.get("typ", "JWT")
    if not isinstance(declared, str):
        raise ValueError("typ is not a string")
    return declared.lower().removeprefix("application/")


def _claims(token: str, keys: KeySet) -> Mapping[str, Any]:
    payload = jws.deserialize_compact(token, keys, algorithms=ALGORITHMS).payload
    return _object(payload)


def _object(document: bytes) -> Mapping[str, Any]:
    """Parse a JSON object in UTF-8 without duplicate names: one reader would use the first, another the last.

    Raises ValueError.
    """
    try:
        found = json.loads(document.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("the JSON is not an object")
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a duplicate name")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _agencies(claim: str, value: Any) -> frozenset[str]:
    """The agencies that the claim names: one, several, or EVERY_AGENCY alone. Raises Unauthenticated."""
    if value == EVERY_AGENCY:
        return frozenset({EVERY_AGENCY})
    named = value if isinstance(value, list) else [value]
    rule = f'it must be an agency\'s ID, a list of at most {MAX_AGENCIES} of them, or "{EVERY_AGENCY}" for all agencies'
    if not named or not all(isinstance(each, str) and is_agency_id(each) for each in named):
        raise Unauthenticated(f"the token's claim `{claim}` is {'missing' if value is None else 'invalid'}: {rule}")
    agencies = frozenset(named)
    if len(agencies) > MAX_AGENCIES:
        raise Unauthenticated(f"the token's claim `{claim}` names {len(agencies)} agencies: {rule}")
    return agencies


def _check_break_glass(claims: Mapping[str, Any], agencies: frozenset[str]) -> None:
    """Raise Unauthenticated unless the token acts for all agencies and is short-lived."""
    if EVERY_AGENCY not in agencies:
        raise Unauthenticated(f'a break-glass token must act for all agencies ("{EVERY_AGENCY}")')
    if "iat" not in claims or claims["exp"] - claims["iat"] > BREAK_GLASS_LIFETIME.total_seconds():
        raise Unauthenticated("a break-glass token's claim `exp` must be at most an hour after its `iat`")
