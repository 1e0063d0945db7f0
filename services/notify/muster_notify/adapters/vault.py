"""Seals the secrets of webhooks, so that the database alone does not reveal them."""

import base64
import secrets

from cryptography.fernet import Fernet
from pydantic import SecretStr

# Standard Webhooks requires 24 to 64 bytes.
SECRET_BYTES = 32


class Vault:
    """Seals and opens secrets with the service's key."""

    def __init__(self, key: SecretStr) -> None:
        self._fernet = Fernet(key.get_secret_value())

    def seal(self, secret: str) -> bytes:
        """The secret as it is stored."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """The secret; raises cryptography's InvalidToken if another key sealed it."""
        return self._fernet.decrypt(sealed).decode()


def new_secret() -> str:
    """A new signing secret in the form of Standard Webhooks: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
