"""A stack's home: a folder with its data, its secrets, its logs and the state of what runs."""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from cryptography.fernet import Fernet
from pydantic import BaseModel, ConfigDict, Field

from muster_runtime.auth import Issuer

ISSUER = "urn:muster:sandbox"

# Below the ports that the kernel gives to outgoing connections: one of those could take ours before we listen.
_PORTS = range(15_000, 30_000)

# The status with which a supervisor ends that finds another one at work.
ALREADY_RUNS = 3

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]


class PortTaken(Exception):
    """A port that was asked for is in use."""


class Installation(BaseModel):
    """What is chosen once and kept: ports, secrets, and the name that sets this stack apart on shared servers."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(default_factory=lambda: secrets.token_hex(4))
    ports: dict[str, int] = {}
    postgres_password: str = Field(default_factory=lambda: secrets.token_hex(24))
    subject_key: str = Field(default_factory=lambda: secrets.token_hex(32))
    secret_key: str


class ProcessState(BaseModel):
    """One process of the stack; `last_lines` are what it said before it last died."""

    name: str
    address: str
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""
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
    """The folder. Files in it that hold secrets are readable by their owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def mail(self) -> Path:
        """Where the mail sink keeps its messages."""
        return self.path / "mail"

    @property
    def jwks(self) -> Path:
        """The public keys of the sandbox's issuer."""
        return self.path / "jwks.json"

    def log(self, process: str) -> Path:
        """What a process says."""
        return self.path / "logs" / f"{process}.log"

    def make(self) -> Self:
        """Make the folder, where it is missing."""
        for folder in (self.path, self.mail, self.path / "logs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    def issuer(self) -> Issuer:
        """The sandbox's issuer of tokens; its key is made on first use."""
        issuer = Issuer.load(self.make().path / "issuer.pem", issuer=ISSUER)
        if not self.jwks.exists():
            _write(self.jwks, json.dumps(issuer.jwks()))
        return issuer

    def installation(self, listeners: Iterable[str], asked: Mapping[str, int]) -> Installation:
        """What is kept, made on first use, with a port for each listener.

        It is the one asked for, else the one it had last if it is free, else any free one.

        Raises PortTaken when a port that was asked for is in use.
        """
        path = self.path / "installation.json"
        if path.exists():
            kept = Installation.model_validate_json(path.read_text("utf-8"))
        else:
            kept = Installation(secret_key=Fernet.generate_key().decode())
        chosen = {name: _port(asked.get(name), kept.ports.get(name)) for name in listeners}
        kept = kept.model_copy(update={"ports": kept.ports | chosen})
        _write(path, kept.model_dump_json(indent=2))
        return kept

    def read_state(self) -> State:
        """The state as last written; an empty one when there is none."""
        try:
            return State.model_validate_json((self.path / "state.json").read_text("utf-8"))
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
        with open(self._lock, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def supervisor(self) -> int | None:
        """The pid of the process that holds the home, if one does."""
        try:
            with open(self._lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    @property
    def _lock(self) -> Path:
        return self.path / "supervisor.lock"


def _port(asked: int | None, kept: int | None) -> int:
    if asked is not None:
        if not _free(asked):
            raise PortTaken(f"port {asked} is in use")
        return asked
    if kept is not None and _free(kept):
        return kept
    return next(port for port in iter(lambda: secrets.choice(_PORTS), None) if _free(port))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
