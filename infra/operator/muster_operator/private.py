"""Files that only their owner can read."""

import os


def open_private(path: str, flags: int) -> int:
    """An `opener` for open(): creates files with mode 0600 and follows no symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
