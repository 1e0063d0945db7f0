"""A stack's home: a folder with its data, its secrets, its logs and the state of what runs."""

import fcntl
import json
import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field

from muster_local.private import append, check, close, open_private
from muster_operator.failures import Refused

if TYPE_CHECKING:
    from muster_runtime.http.issuer import Issuer

ISSUER = "urn:muster:sandbox"

# The identity provider of a secured stack, as a process.
PROVIDER = "provider"

# Below the ports that the kernel gives to outgoing connections: one of those could take ours before we listen.
_PORTS = range(15_000, 30_000)

# The status with which a supervisor ends that finds another one at work.
ALREADY_RUNS = 3

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]


class PortTaken(Exception):
    """A port that was asked for is in use, or no port is free."""


class SecuredOtherwise(Refused):
    """A home was made secured and cannot become plain, or the other way around."""


class Credentials(BaseModel):
    """Of a secured stack: the password of Kafka's administrator, and the operator's secret at the provider."""

    model_config = ConfigDict(frozen=True)

    kafka_password: str = Field(default_factory=lambda: secrets.token_hex(24))
    client_secret: str = Field(default_factory=lambda: secrets.token_hex(24))


class Installation(BaseModel):
    """What is chosen once and kept: ports, secrets, and the name that sets this stack apart on shared servers.

    Only a secured stack has the credentials `secured`.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(default_factory=lambda: secrets.token_hex(4))
    ports: dict[str, int] = {}
    postgres_password: str = Field(default_factory=lambda: secrets.token_hex(24))
    subject_key: str = Field(default_factory=lambda: secrets.token_hex(32))
    secret_key: str
    secured: Credentials | None = None


class ProcessState(BaseModel):
    """One process of the stack; `last_lines` are what it said before it last died."""

    name: str
    address: str
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""
    last_exit_at: datetime | None = None
    last_lines: list[str] = []


class State(BaseModel):
    """What runs, as the supervisor last wrote it."""

    supervisor: int = 0
    phase: Phase = "starting"
    steps: list[str] = []
    failure: str = ""
    admin_dsn: str = ""
    bootstrap: str = ""
    topic_prefix: str = ""
    processes: dict[str, ProcessState] = {}


class Home:
    """The folder. All in it is for its owner alone: folders have mode 0700, files 0600.

    Started by root, Postgres runs as a system user, whose group may pass through the folder (0710).

    Nobody holds a Home that has not been checked, so nothing is read of a folder that others could write to.
    """

    def __init__(self, path: Path) -> None:
        """Raises HomeRefused when others could reach into the folder."""
        given = Path(os.path.abspath(path))
        # The last step is not resolved: a link must be seen to be refused.
        self.path = given.parent.resolve() / given.name
        check(self.path)

    @property
    def mail(self) -> Path:
        """Where the mail sink keeps its messages."""
        return self.path / "mail"

    @property
    def jwks(self) -> Path:
        """The public keys of the sandbox's issuer."""
        return self.path / "jwks.json"

    def has_stack(self) -> bool:
        """Whether a stack was ever started here."""
        return self._installation.exists()

    def kept(self) -> Installation | None:
        """What is kept of the stack that was made here; None if there is none."""
        return Installation.model_validate_json(_read(self._installation)) if self.has_stack() else None

    def secured(self, asked: bool | None) -> bool:
        """Whether the stack is secured: as it was made, or as asked for when it is made.

        Raises SecuredOtherwise when another is asked for than was made.
        """
        kept = self.kept()
        if kept is None:
            return bool(asked)
        made = kept.secured is not None
        if asked is not None and asked != made:
            kind = "secured" if made else "without --secure"
            raise SecuredOtherwise(
                f"the stack in {self.path} was made {kind}, which stays: choose another home (--home)"
            )
        return made

    def log(self, process: str) -> Path:
        """What a process says."""
        return self.path / "logs" / f"{process}.log"

    def append(self, process: str) -> BinaryIO:
        """Open a process's log, to append to it."""
        return append(self.log(process))

    def make(self) -> Self:
        """Make the folder if it is missing, and close it to others, where it is empty.

        Raises HomeRefused when others could reach into it.
        """
        check(self.path)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        close(self.path)
        for folder in (self.mail, self.path / "logs"):
            folder.mkdir(exist_ok=True, mode=0o700)
        return self

    def issuer(self) -> "Issuer":
        """The sandbox's issuer of tokens; its key is made on first use."""
        # Most commands need no token, and cryptography takes long to load.
        from muster_runtime.http.issuer import Issuer

        issuer = Issuer.load(self.make().path / "issuer.pem", issuer=ISSUER)
        if not self.jwks.exists():
            _write(self.jwks, json.dumps(issuer.jwks()))
        return issuer

    def installation(self, listeners: Iterable[str], asked: Mapping[str, int], *, secure: bool = False) -> Installation:
        """What is kept, made on first use, secured if `secure`, with a port for each listener.

        It is the one asked for, else the one it had last if it is free, else any free one; no two get the same.

        Raises PortTaken when a port that was asked for is in use or is asked for twice, or when no port is free.
        """
        kept = self.kept()
        if kept is None:
            from cryptography.fernet import Fernet

            kept = Installation(secret_key=Fernet.generate_key().decode(), secured=Credentials() if secure else None)
        kept = kept.model_copy(update={"ports": kept.ports | _choose_ports(list(listeners), asked, kept.ports)})
        _write(self._installation, kept.model_dump_json(indent=2))
        return kept

    def read_state(self) -> State:
        """The state as last written; an empty one when there is none."""
        try:
            return State.model_validate_json(_read(self.path / "state.json"))
        except FileNotFoundError:
            return State()

    def write_state(self, state: State) -> None:
        """Keep the state."""
        _write(self.path / "state.json", state.model_dump_json(indent=2))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home for as long as this process supervises it.

        Raises BlockingIOError when another process does. The lock, not the pid written in it, says
        whether a supervisor runs: it goes with its process, however that ends.
        """
        with open(self._lock, "a+", opener=open_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def supervisor(self) -> int | None:
        """The pid of the process that holds the home, if one does."""
        with suppress(FileNotFoundError), open(self._lock, opener=open_private) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._holder(file.read())
        return None

    def _holder(self, written: str) -> int | None:
        """The pid in the lock, if it is of a process of ours that has the lock open.

        Until a new holder has written its own, it is a dead one's, which any process may have by now.
        """
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(int(written))
            opened = [file.path for file in process.open_files()]
            if process.uids().effective == os.geteuid() and str(self._lock) in opened:
                return process.pid
        return None

    @property
    def _installation(self) -> Path:
        return self.path / "installation.json"

    @property
    def _lock(self) -> Path:
        return self.path / "supervisor.lock"


def _choose_ports(listeners: Sequence[str], asked: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    """A port for each listener, and no port twice."""
    wanted = {name: asked[name] for name in listeners if name in asked}
    for port, count in Counter(wanted.values()).items():
        if count > 1:
            names = " and ".join(name for name in listeners if wanted.get(name) == port)
            raise PortTaken(f"port {port} is requested for both {names}: use different ports")
        if not _free(port):
            raise PortTaken(f"port {port} is in use")
    chosen = dict(wanted)
    for name in listeners:
        if name not in chosen and name in kept and kept[name] not in chosen.values() and _free(kept[name]):
            chosen[name] = kept[name]
    for name in listeners:
        if name not in chosen:
            chosen[name] = draw_port(set(chosen.values()))
    return chosen


def draw_port(taken: set[int]) -> int:
    """Any free port but those that are taken."""
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if port not in taken and _free(port):
            return port
    raise PortTaken(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _read(path: Path) -> str:
    with open(path, encoding="utf-8", opener=open_private) as file:
        return file.read()


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(fresh, "w", encoding="utf-8", opener=open_private) as file:
        file.write(text)
    fresh.replace(path)
