"""What makes a folder private: all in it is its owner's alone. How that is checked, and how a file in it is opened."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from muster_operator.failures import BadInput

# Postgres refuses to run as root. Started by root, it runs as a system user of its own.
SYSTEM_USER = "embedded_postgres"

# The servers' own folders. They are checked themselves; what lies below them is the servers' business.
_POSTGRES, _KAFKA = "postgres", "kafka"


class HomeRefused(BadInput):
    """The folder cannot be a home: others could read or replace what is in it. The message says what to do."""


def open_private(path: str, flags: int) -> int:
    """An `opener` for open(): a new file is its owner's alone, and a symbolic link is not followed."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def append(path: Path) -> BinaryIO:
    """Open a file to append to it."""
    return open(path, "ab", opener=open_private)


def check(home: Path) -> None:
    """Look at a home and all that is in it; one that is empty, or not there yet, is fine.

    Raises HomeRefused when something belongs to another user, is open to others, or is no plain file or folder:
    a symbolic link, a file with another name elsewhere, a pipe.
    """
    try:
        if home.is_file():
            raise HomeRefused(f"{home} is a file: choose a folder (--home)")
        for path in _all(home):
            _check(home, path)
    except OSError as error:
        raise HomeRefused(f"{home} cannot be a home: {error.strerror}: choose another folder (--home)") from None


def close(home: Path) -> None:
    """Close an empty home to others. Raises HomeRefused when somebody has put something into it."""
    if _is_open(home, home, home.lstat()):
        home.chmod(0o700)
        check(home)


def _all(home: Path) -> Iterator[Path]:
    """The home and what is in it, but for what lies below the servers' own folders."""
    yield home
    for folder, folders, files in os.walk(home):
        for name in (*folders, *files):
            yield Path(folder, name)
        if Path(folder) == home:
            folders[:] = [name for name in folders if name not in (_POSTGRES, _KAFKA)]


def _check(home: Path, path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return  # not made yet, or replaced while we look
    if kind := _odd_kind(found):
        raise HomeRefused(
            f"{path} is a {kind}, but a home holds only plain files: remove it, or choose another home (--home)"
        )
    if found.st_uid not in _owners(home, path):
        raise HomeRefused(
            f"{path} belongs to {_user(found.st_uid)}, and you are {_user(os.geteuid())}: "
            "choose a folder of your own (--home)"
        )
    if _is_open(home, path, found) and (path != home or any(path.iterdir())):
        raise HomeRefused(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"close it with chmod -R go= {home}, or choose another home (--home)"
        )


def _odd_kind(found: os.stat_result) -> str:
    """What it is, if it is no folder and no plain file."""
    if stat.S_ISLNK(found.st_mode):
        return "symbolic link"
    if stat.S_ISREG(found.st_mode):
        return "hard link" if found.st_nlink > 1 else ""
    return "" if stat.S_ISDIR(found.st_mode) else "special file"


def _owners(home: Path, path: Path) -> set[int]:
    owners = {os.geteuid()}
    if path == home / _POSTGRES and os.geteuid() == 0:
        with suppress(KeyError):
            owners.add(pwd.getpwnam(SYSTEM_USER).pw_uid)
    return owners


def _is_open(home: Path, path: Path, found: os.stat_result) -> bool:
    """Whether others may do anything with it, but pass through the home on their way to Postgres."""
    allowed = stat.S_IXGRP if path == home else 0
    return bool(stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
