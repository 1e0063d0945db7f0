"""The roles' passwords: one file per role in a folder, and never plain text in a statement."""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from muster_operator.failures import BadInput
from muster_runtime.secrets import weakness

# Postgres's own parameters for hashing a password.
_ITERATIONS = 4096
_SALT_BYTES = 16

# A new password has 256 bits, in characters that a DSN need not escape.
_PASSWORD_BYTES = 32


def verifier(password: str) -> str:
    """The SCRAM verifier that Postgres stores for a password (RFC 5803).

    A statement with the verifier does not reveal the password, not even in the server's log.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key, server_key = (hmac.digest(salted, part, "sha256") for part in (b"Client Key", b"Server Key"))
    stored_key = hashlib.sha256(client_key).digest()
    salt_, stored, server = (base64.b64encode(each).decode() for each in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt_}${stored}:{server}"


def read_passwords(folder: Path, roles: Iterable[str]) -> dict[str, str]:
    """The passwords in the folder, in files named after their roles. Raises BadInput for a weak or unreadable one."""
    found = {}
    for role in roles:
        file = folder / role
        try:
            password = file.read_text("ascii").removesuffix("\n").removesuffix("\r")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "must be ASCII"
            raise BadInput(f"{file}: {reason}") from None
        if weak := weakness(password):
            raise BadInput(f"{file}: {weak}")
        found[role] = password
    return found


def make_passwords(folder: Path, roles: Iterable[str]) -> dict[str, str]:
    """Create passwords and write them to files with mode 0600. Raises BadInput if it cannot write them."""
    made = {role: secrets.token_urlsafe(_PASSWORD_BYTES) for role in roles}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role, password in made.items():
            with os.fdopen(os.open(folder / role, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(password)
    except OSError as error:
        how = "put the password there, or name another folder with --passwords"
        raise BadInput(f"{error.filename} cannot be written ({error.strerror}): {how}") from None
    return made
