"""Seals webhooks' secrets, so that the database alone does not reveal them."""

import base64
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from muster_notify.settings import keys_of

# Standard Webhooks requires 24 to 64 bytes.
SECRET_BYTES = 32


class Vault:
    """Seals secrets with the first of the service's keys, and opens them with any.

    To rotate a key, put the new key before the old one, and keep the old one until everything is sealed with the new
    one.
    """

    def __init__(self, keys: SecretStr) -> None:
        self._keys = keys

    def seal(self, secret: str) -> bytes:
        """Seal a secret for storage."""
        return self._fernet().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Open a sealed secret. Raises cryptography's InvalidToken if an unknown key sealed it."""
        return self._fernet().decrypt(sealed).decode()

    def reseal(self, sealed: bytes) -> bytes | None:
        """The secret sealed with the first key; None if it already is. Raises InvalidToken, like `open`."""
        try:
            Fernet(self.keys[0]).decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None

    @property
    def keys(self) -> Sequence[str]:
        """The current keys in their file."""
        return keys_of(self._keys.get_secret_value())

    def _fernet(self) -> MultiFernet:
        return MultiFernet([Fernet(key) for key in self.keys])


def new_secret() -> str:
    """A new signing secret in the Standard Webhooks format: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
