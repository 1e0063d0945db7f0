"""Private folders: only the owner can access anything in them. Checks a folder, and opens files in it."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from muster_operator.failures import BadInput
from muster_operator.private import open_private

# Postgres refuses to run as root. If root starts it, it runs as this system user.
SYSTEM_USER = "embedded_postgres"

# The servers' data folders. The check covers the folders, not their contents, which the servers own.
_POSTGRES, _KAFKA = "postgres", "kafka"


class HomeRefused(BadInput):
    """The folder cannot be a home: others could read or replace its files. The message says what to do."""


def append(path: Path) -> BinaryIO:
    return open(path, "ab", opener=open_private)


def check(home: Path) -> None:
    """Check a home and everything in it. An empty or missing folder passes.

    Raises HomeRefused if anything belongs to another user, is accessible to others, or is not a regular file or
    folder: a symbolic link, a hard link, a pipe.
    """
    try:
        if home.is_file():
            raise HomeRefused(f"{home} is a file: choose a folder (--home)")
        for path in _all(home):
            _check(home, path)
    except OSError as error:
        raise HomeRefused(f"{home} cannot be a home: {error.strerror}: choose another folder (--home)") from None


def close(home: Path) -> None:
    """Set an open, empty home to mode 0700. Raises HomeRefused if somebody put a file into it first."""
    if _is_open(home, home, home.lstat()):
        home.chmod(0o700)
        check(home)


def _all(home: Path) -> Iterator[Path]:
    """The home and its contents, except those of the servers' data folders."""
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
        return  # not created yet, or replaced during the walk
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
    """The kind of a file; an empty string for a folder or a regular file with one link."""
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
    """Whether others have any access to it, except that Postgres's group may traverse the home."""
    allowed = stat.S_IXGRP if path == home else 0
    return bool(stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
