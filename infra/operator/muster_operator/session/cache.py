"""Keeps the session of a login in the user's configuration folder, readable only by its owner."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from muster_operator.failures import BadInput, Refused
from muster_operator.private import open_private
from muster_operator.session.oauth import Client, ProviderRefused, Tokens, secret_of_environment


class Session(BaseModel):
    """A login: the client that requested it, and its tokens."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    client_id: str
    resource: str
    access_token: str
    expires_at: AwareDatetime
    refresh_token: str | None

    @classmethod
    def of(cls, client: Client, tokens: Tokens) -> "Session":
        """The session of an approved login."""
        return cls(
            issuer=client.issuer,
            client_id=client.client_id,
            resource=client.resource,
            access_token=tokens.access_token,
            expires_at=tokens.expires_at,
            refresh_token=tokens.refresh_token,
        )

    @property
    def client(self) -> Client:
        """The client that requested it, with the secret from the environment."""
        return Client(self.issuer, self.client_id, secret_of_environment(), resource=self.resource)

    @property
    def tokens(self) -> Tokens:
        """The tokens that the provider issued."""
        return Tokens(self.access_token, self.expires_at, self.refresh_token)


class SessionCache:
    """The session's file, mode 0600, in the folder `muster` of XDG_CONFIG_HOME (by default ~/.config), mode 0700."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "muster"
        self._file = self.folder / "session.json"

    def find(self) -> Session | None:
        """The session, if there is one. Raises BadInput if others could read or replace its file."""
        try:
            _require_private(self.folder.lstat(), self.folder)
            with open(self._file, encoding="utf-8", opener=open_private) as file:
                _require_private(os.fstat(file.fileno()), self._file)
                return Session.model_validate_json(file.read())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise BadInput(f"{self._file} is damaged: run muster login") from None
        except OSError as error:
            raise BadInput(f"{self._file} cannot be read: {error.strerror}") from None

    def save(self, session: Session) -> None:
        """Replace the session. Raises BadInput if others could read or replace its file."""
        with self._changing():
            self._write(session)

    def remove(self) -> Session | None:
        """Delete the session and return it. Raises BadInput."""
        if self.find() is None:
            return None
        with self._changing():  # a command that is refreshing the session would write it again
            session = self.find()
            self._file.unlink(missing_ok=True)
        return session

    def token(self) -> str:
        """A token that lives long enough for a request, refreshed if necessary.

        Of several concurrent commands, only one refreshes: a provider accepts each refresh token once, and ends the
        session if a token is used twice. Raises BadInput, Refused, TimedOut, or Unreachable.
        """
        session = self._required()
        if session.tokens.are_fresh:
            return session.access_token
        with self._changing():
            session = self._required()
            if not session.tokens.are_fresh:
                session = self._refreshed(session)
                self._write(session)
        return session.access_token

    def _required(self) -> Session:
        session = self.find()
        if session is None:
            raise BadInput("you are not logged in: run muster login")
        return session

    def _refreshed(self, session: Session) -> Session:
        if session.refresh_token is None:
            raise Refused("the session has ended: run muster login")
        try:
            tokens = session.client.by_refresh_token(session.refresh_token)
        except ProviderRefused as refused:
            if refused.code != "invalid_grant":
                raise
            raise Refused("the session has ended: run muster login") from None
        return Session.of(session.client, tokens)

    def _write(self, session: Session) -> None:
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with open(fresh, "w", encoding="utf-8", opener=open_private) as file:
            file.write(session.model_dump_json(indent=2))
        fresh.replace(self._file)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Create the folder if it is missing, and lock the session against other commands."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            _require_private(self.folder.lstat(), self.folder)
            with open(self.folder / "session.lock", "a", opener=open_private) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise BadInput(f"{self.folder} cannot hold the session: {error.strerror}") from None


def _require_private(found: os.stat_result, path: Path) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        raise BadInput(f"{path} must belong to you and not be a symbolic link: remove it and run muster login")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput(f"{path} is accessible to others (mode {mode:04o}): restrict it with chmod go= {path}")
