"""Seals the secrets of webhooks, so that the database alone does not reveal them."""

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

    So a key is rotated: the new one is put before the old one, which stays until all is sealed with the new one.
    """

    def __init__(self, keys: SecretStr) -> None:
        self._keys = keys

    def seal(self, secret: str) -> bytes:
        """The secret as it is stored."""
        return self._fernet().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """The secret; raises cryptography's InvalidToken if another key sealed it."""
        return self._fernet().decrypt(sealed).decode()

    def seal_anew(self, sealed: bytes) -> bytes | None:
        """The secret sealed with the first key; None if it is. Raises InvalidToken as `open` does."""
        try:
            Fernet(self.keys[0]).decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None

    @property
    def keys(self) -> Sequence[str]:
        """The keys as their file has them now."""
        return keys_of(self._keys.get_secret_value())

    def _fernet(self) -> MultiFernet:
        return MultiFernet([Fernet(key) for key in self.keys])


def new_secret() -> str:
    """A new signing secret in the form of Standard Webhooks: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
