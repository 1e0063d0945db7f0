"""Selects the keys of a published set that may verify a signature. Other keys are ignored."""

from typing import Any

import structlog
from joserfc.jwk import JWKRegistry, Key, KeySet, RSAKey

# RFC 7518, 6.3.2; of other key types 6.2.2, 6.4 (`k`: a shared secret), and RFC 8037, 2.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

# RFC 7518, 3.3.
_MIN_RSA_BITS = 2048

log = structlog.get_logger(__name__)


def usable_keys(document: Any) -> KeySet:
    """The keys of a JSON Web Key Set that may verify signatures (RFC 7517, 5). Raises ValueError if there is none."""
    published = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(published, list):
        raise ValueError("this is not a key set: it has no list `keys`")
    keys = [key for jwk in published if (key := _usable(jwk)) is not None]
    if not keys:
        raise ValueError("the key set has no usable key")
    return KeySet(keys)


def _usable(jwk: Any) -> Key | None:
    """The key, or None if it has another use or an unknown type. A key that endangers its issuer is also logged."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid", ""), str) or not _verifies(jwk):
        return None
    if _PRIVATE_MEMBERS & jwk.keys():
        _report(jwk, "whoever reads the key set could sign with it")
        return None
    try:
        key = JWKRegistry.import_key(jwk)
    except Exception:  # whatever is wrong, it is not a kind of key that we know
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size < _MIN_RSA_BITS:
        _report(jwk, f"an RSA key must have {_MIN_RSA_BITS} bits")
        return None
    return key


def _verifies(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _report(jwk: dict[str, Any], rule: str) -> None:
    log.warning("issuer_key_ignored", kid=jwk.get("kid"), rule=rule)
