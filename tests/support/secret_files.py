"""Secrets in files that a running process reads again, replaced as an operator's tools replace them."""

import secrets
from pathlib import Path


class SecretFiles:
    """A folder of secrets, as Kubernetes mounts one: each a file, whose content changes as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, name: str, text: str) -> Path:
        """Write a secret, or replace it."""
        new = self.folder / f".{name}.new"
        new.write_text(text)
        return new.replace(self.folder / name)


def new_password() -> str:
    """A password that production accepts."""
    return secrets.token_urlsafe(24)
