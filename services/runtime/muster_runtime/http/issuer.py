"""Issues tokens for sandboxes and tests. Imports no web framework, so that commands load it fast."""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, KeySetSerialization, OKPKey

from muster_runtime.clock import SystemClock


class Issuer:
    """Issues tokens for sandboxes and tests. In production, the identity provider issues them."""

    def __init__(self, key: OKPKey, *, issuer: str, audience: str) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def load(cls, path: Path, *, issuer: str, audience: str = "muster") -> "Issuer":
        """Load the issuer's private key from a file. If the file does not exist, create a new key in it (mode 0600)."""
        if not path.exists():
            key = OKPKey.generate_key("Ed25519", auto_kid=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key.as_pem(private=True))
        key = OKPKey.import_key(path.read_bytes())
        key.ensure_kid()
        return cls(key, issuer=issuer, audience=audience)

    def jwks(self) -> KeySetSerialization:
        """The public keys as a JSON Web Key Set."""
        return KeySet([self._key]).as_dict(private=False)

    def token(
        self,
        scopes: Iterable[str],
        *,
        agency: str | Sequence[str] | None,
        subject: str = "operator",
        lifetime: timedelta = timedelta(hours=1),
        **more: Any,
    ) -> str:
        """A signed token, valid from now for `lifetime`. With EVERY_AGENCY, it acts for all agencies.

        Without an agency, every service refuses it, which tests use. `more` are additional claims.
        """
        now = SystemClock().now()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "scope": " ".join(scopes),
            **more,
        }
        if agency is not None:
            claims["agency"] = agency
        return jwt.encode({"alg": "Ed25519", "kid": self._key.kid}, claims, self._key, algorithms=["Ed25519"])
