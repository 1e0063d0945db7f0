"""A stack's home: the folder with its data, secrets, logs, and the state of its processes."""

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

from muster_local.private import append, check, close
from muster_operator.failures import Refused
from muster_operator.private import open_private

if TYPE_CHECKING:
    from muster_runtime.http.issuer import Issuer

ISSUER = "urn:muster:sandbox"

# The process name of a secured stack's identity provider.
PROVIDER = "provider"

# The subjects of the tokens that a stack issues for its own commands. There are two, since nobody may approve their own
# proposal.
OPERATOR = "operator"
APPROVER = "approver"

# Below the kernel's ephemeral ports: an outgoing connection could take one of those before we listen on it.
_PORTS = range(15_000, 30_000)

# A supervisor's exit status if another one already has the home.
ALREADY_RUNS = 3

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]


class PortTaken(Exception):
    """A requested port is in use, or no port is free."""


class SecuredOtherwise(Refused):
    """The home's stack was created secured and cannot become plain, or the reverse."""


class Credentials(BaseModel):
    """A secured stack's credentials: the Kafka administrator's password and the operator's client secret."""

    model_config = ConfigDict(frozen=True)

    kafka_password: str = Field(default_factory=lambda: secrets.token_hex(24))
    client_secret: str = Field(default_factory=lambda: secrets.token_hex(24))


class Installation(BaseModel):
    """Chosen once and then kept: ports, secrets, and the name that identifies this stack on shared servers.

    `secured` is None for a plain stack.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(default_factory=lambda: secrets.token_hex(4))
    ports: dict[str, int] = {}
    postgres_password: str = Field(default_factory=lambda: secrets.token_hex(24))
    subject_key: str = Field(default_factory=lambda: secrets.token_hex(32))
    secret_key: str
    secured: Credentials | None = None


class ProcessState(BaseModel):
    """One process of the stack; `last_lines` is the end of its output before it last exited."""

    name: str
    address: str
    maintenance: bool = False
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""
    last_exit_at: datetime | None = None
    last_lines: list[str] = []


class State(BaseModel):
    """The stack's state as the supervisor last wrote it."""

    supervisor: int = 0
    phase: Phase = "starting"
    steps: list[str] = []
    failure: str = ""
    admin_dsn: str = ""
    bootstrap: str = ""
    topic_prefix: str = ""
    processes: dict[str, ProcessState] = {}


class Home:
    """A home folder. Only its owner can access it: folders have mode 0700, files 0600.

    If root starts the stack, Postgres runs as a system user, whose group may traverse the folder (0710). The
    constructor checks the folder, so nothing is ever read from one that others can write to.
    """

    def __init__(self, path: Path) -> None:
        """Raises HomeRefused if others have access to the folder."""
        given = Path(os.path.abspath(path))
        # Do not resolve the last component: the check must see a symbolic link to refuse it.
        self.path = given.parent.resolve() / given.name
        check(self.path)

    @property
    def mail(self) -> Path:
        """The folder of the mail sink's messages."""
        return self.path / "mail"

    @property
    def jwks(self) -> Path:
        """The file with the public keys of the sandbox's issuer."""
        return self.path / "jwks.json"

    def has_stack(self) -> bool:
        return self._installation.exists()

    def kept(self) -> Installation | None:
        """The installation of this home's stack; None if no stack was ever started here."""
        return Installation.model_validate_json(_read(self._installation)) if self.has_stack() else None

    def secured(self, asked: bool | None) -> bool:
        """Whether the stack is secured: as created, or as `asked` if it does not exist yet.

        Raises SecuredOtherwise if `asked` contradicts the existing stack.
        """
        kept = self.kept()
        if kept is None:
            return bool(asked)
        made = kept.secured is not None
        if asked is not None and asked != made:
            kind = "secured" if made else "without --secure"
            raise SecuredOtherwise(
                f"the stack in {self.path} was made {kind} and cannot be changed: choose another home (--home)"
            )
        return made

    def log(self, process: str) -> Path:
        """The path of a process's log."""
        return self.path / "logs" / f"{process}.log"

    def append(self, process: str) -> BinaryIO:
        """Open a process's log for appending."""
        return append(self.log(process))

    def make(self) -> Self:
        """Create the folder if it is missing; remove others' access if it is empty.

        Raises HomeRefused if others have access.
        """
        check(self.path)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        close(self.path)
        for folder in (self.mail, self.path / "logs"):
            folder.mkdir(exist_ok=True, mode=0o700)
        return self

    def issuer(self) -> "Issuer":
        """The sandbox's token issuer; creates its key on first use."""
        # Imported late: most commands need no token, and cryptography is slow to load.
        from muster_runtime.http.issuer import Issuer

        issuer = Issuer.load(self.make().path / "issuer.pem", issuer=ISSUER)
        if not self.jwks.exists():
            _write(self.jwks, json.dumps(issuer.jwks()))
        return issuer

    def installation(self, listeners: Iterable[str], asked: Mapping[str, int], *, secure: bool = False) -> Installation:
        """The installation, created on first use (secured if `secure`), with a distinct port for each listener.

        A listener gets the port in `asked`, else its previous port if that is free, else any free port.

        Raises PortTaken if a requested port is in use or requested twice, or if no port is free.
        """
        kept = self.kept()
        if kept is None:
            from cryptography.fernet import Fernet

            kept = Installation(secret_key=Fernet.generate_key().decode(), secured=Credentials() if secure else None)
        kept = kept.model_copy(update={"ports": kept.ports | _choose_ports(list(listeners), asked, kept.ports)})
        _write(self._installation, kept.model_dump_json(indent=2))
        return kept

    def read_state(self) -> State:
        """The state as last written; an empty one if there is none."""
        try:
            return State.model_validate_json(_read(self.path / "state.json"))
        except FileNotFoundError:
            return State()

    def write_state(self, state: State) -> None:
        _write(self.path / "state.json", state.model_dump_json(indent=2))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the home while this process supervises it.

        Raises BlockingIOError if another process holds the lock. The lock, not the pid in its file, says whether a
        supervisor runs: the kernel releases it when the process ends, even if it is killed.
        """
        with open(self._lock, "a+", opener=open_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def supervisor(self) -> int | None:
        """The pid of the process that holds the home's lock, if any."""
        with suppress(FileNotFoundError), open(self._lock, opener=open_private) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._holder(file.read())
        return None

    def _holder(self, written: str) -> int | None:
        """The pid in the lock file, if that process is ours and has the file open.

        Until a new holder writes its pid, the file has a dead process's, which the kernel may have reused.
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
    """A distinct port for each listener."""
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
    """A random free port that is not in `taken`. Raises PortTaken."""
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
    """Replace a file atomically, mode 0600."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(fresh, "w", encoding="utf-8", opener=open_private) as file:
        file.write(text)
    fresh.replace(path)
