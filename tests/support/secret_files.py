"""Secret files that a running process reloads, replaced the way an operator's tools replace them."""

import secrets
from pathlib import Path


class SecretFiles:
    """A folder of secrets like Kubernetes mounts: a file for each, replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, name: str, text: str) -> Path:
        """Write or replace a secret; return its file."""
        new = self.folder / f".{name}.new"
        new.write_text(text)
        return new.replace(self.folder / name)


def new_password() -> str:
    """A password that production accepts."""
    return secrets.token_urlsafe(24)
