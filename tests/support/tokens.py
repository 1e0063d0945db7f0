"""Tokens of any shape, and a verifier that accepts or refuses them."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from muster_runtime.clock import SystemClock
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from muster_runtime.http.tokens import TokenVerifier

ISSUER = "https://identity.example.gov"
AUDIENCE = "muster"
NOW = SystemClock().now()


def verifier_with(source: KeySource, issuer: str = ISSUER, roles: str = "") -> TokenVerifier:
    """A verifier with these keys, and with the roles in a file."""
    return TokenVerifier(source, issuer=issuer, audience=AUDIENCE, clock=SystemClock(), roles=Roles.load(roles))


def verifier_of(jwks: object, directory: Path, roles: str = "") -> TokenVerifier:
    """A verifier with this key set, and with the roles in a file."""
    file = directory / "jwks.json"
    file.write_text(json.dumps(jwks))
    return verifier_with(KeySource(str(file)), roles=roles)


def claims(**changes: Any) -> dict[str, Any]:
    """Valid claims with changes; None removes a claim."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": int((NOW + timedelta(days=1)).timestamp()),
        "scope": "sample:read sample:write",
        "agency": "NASA",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def encoded(part: object) -> str:
    return packed(json.dumps(part).encode())


def packed(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def at(**ahead: float) -> int:
    """A NumericDate (RFC 7519, 2), ahead of now."""
    return int((NOW + timedelta(**ahead)).timestamp())


def signed(key: OKPKey, payload: bytes | dict[str, Any] | None = None, **header: Any) -> str:
    """The Authorization header of a token signed with the issuer's key; by default with valid claims.

    A header member of None is omitted.
    """
    payload = claims() if payload is None else payload
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    members = {"alg": "Ed25519", "kid": key.kid, "typ": "JWT", **header}
    head = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
    return signed_parts(key, head, body)


def signed_parts(key: OKPKey, head: bytes, body: bytes) -> str:
    """Like `signed`, from bytes."""
    message = f"{packed(head)}.{packed(body)}"
    private = key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    return f"Bearer {message}.{packed(private.sign(message.encode()))}"
