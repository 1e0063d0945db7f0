"""Grants and withdraws a subscriber's ACLs and password on Kafka. Each step can be repeated."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from muster_contracts import topics
from muster_operator.access.acls import Acl, Remedy, compare, principal_of
from muster_operator.access.administrator import Administrator
from muster_operator.failures import BadInput, CommandFailed
from muster_operator.subscribers.registry import Subscriber

_PASSWORD_BYTES = 32
_LONGEST_PASSWORD_FILE = 1_000


@contextmanager
def repeatable() -> Iterator[None]:
    """A block of steps that may fail halfway: the error says how to finish the work."""
    try:
        yield
    except CommandFailed as error:
        raise type(error)(f"{error}; the change is incomplete: run the same command again") from error


async def grant(administrator: Administrator, subscriber: Subscriber, prefix: str, principal: str) -> list[Acl]:
    """Add the ACLs that a subscriber lacks, and remove those on Muster's topics that it should not have.

    Returns the ACLs that it should have.
    """
    wanted = subscriber.acls(prefix, principal)
    there = [acl for acl in await administrator.acls() if acl.principal == principal_of(subscriber.name, principal)]
    found = compare(wanted, there, topics().values(), prefix=prefix, principal=principal, registered=True)
    await administrator.add([each.acl for each in found if each.remedy is Remedy.ADD])
    await administrator.remove([each.acl for each in found if each.remedy is Remedy.PRUNE])
    return wanted


async def withdraw(administrator: Administrator, subscriber: Subscriber, prefix: str, principal: str) -> None:
    """Remove a subscriber's password, and then its ACLs: on Muster's resources and on its own groups."""
    await administrator.remove_user(subscriber.name)
    who, wanted = principal_of(subscriber.name, principal), subscriber.acls(prefix, principal)
    there = [acl for acl in await administrator.acls() if acl.principal == who]
    beyond = compare([], there, topics().values(), prefix=prefix, principal=principal, registered=True)
    gone = {each.acl for each in beyond if each.remedy is Remedy.PRUNE} | (set(wanted) & set(there))
    await administrator.remove(sorted(gone))


@contextmanager
def replacement(file: Path | None) -> Iterator[str]:
    """A new password, which the block sets in Kafka. With a file, it replaces the file's content if the block succeeds.

    Until then it is beside the file. A repetition takes it from there: Kafka may have it, even if the block failed.
    Raises BadInput if the file cannot be written, or if an existing one is not a password's.
    """
    if file is None:
        yield password_for(None)
        return
    if os.path.lexists(file):
        _kept_in(file)
    new = file.with_name(f".{file.name}.new")
    yield password_for(new)
    with suppress(FileNotFoundError):  # another command at the same time has put it in place
        new.replace(file)


def password_for(file: Path | None) -> str:
    """A new password. With a file, write it there, mode 0600, before Kafka gets it.

    If the file exists, its content is the password, so that repeating the command changes nothing. Raises BadInput if
    others have access to the file.
    """
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    if file is None:
        return password
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _kept_in(file)
    except OSError as error:
        raise BadInput(f"--password-file {file}: cannot be written: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as new:
        new.write(password + "\n")
    return password


def _kept_in(file: Path) -> str:
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as kept:
            found = os.fstat(kept.fileno())
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise BadInput(f"--password-file {file}: must be accessible only to you: chmod go= {file}")
            password = kept.read(_LONGEST_PASSWORD_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--password-file {file}: cannot be read: {error}") from None
    if not password:
        raise BadInput(f"--password-file {file}: is empty")
    return password
