"""The whole stack behind one handle, for the `muster` command, the demo, and the end-to-end tests."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil

from muster_local.child import dies_with_parent, last_lines
from muster_local.home import ALREADY_RUNS, APPROVER, OPERATOR, PROVIDER, Home, State
from muster_operator.failures import BadInput, NotFound, Refused
from muster_operator.servers import Servers
from muster_runtime.identifiers import EVERY_AGENCY

if TYPE_CHECKING:
    from muster_local.secured import Secured
    from muster_runtime.messaging.connection import KafkaConnection

_POLL_SECONDS = 0.05
_STOP_SECONDS = 75.0
_TOKEN_LIFETIME = timedelta(days=1)


class StackFailed(Exception):
    """The stack did not start; nothing is left running.

    The message names the failed process and includes its last lines.
    """


class AlreadyRuns(Refused):
    """A stack already runs in the home, and the request needs a restart."""


class Stack:
    """A stack: Postgres, Kafka, the mail sink, and the four services, under one supervisor process."""

    def __init__(self, home: Path) -> None:
        """Raises HomeRefused if others have access to the folder."""
        self._home = Home(home)
        self.home = self._home.path

    @classmethod
    async def start(
        cls,
        home: Path,
        *,
        progress: Callable[[str], None] = lambda _: None,
        detached: bool = False,
        services: Sequence[str] | None = None,
        ports: Mapping[str, int] | None = None,
        maintained: Sequence[str] = (),
        secure: bool | None = None,
    ) -> "Stack":
        """Start the stack of a home folder, or join the one that already runs there.

        `progress` receives a sentence for each step. Unless `detached`, the stack stops when this process ends for
        any reason. `services` defaults to all four; with an empty sequence, only Postgres and Kafka run. `ports` sets
        ports by name; the others are free ports, kept from one start to the next. Services in `maintained` run only
        their operator routes. `secure` applies when a home's stack is first created; None keeps what exists, or
        creates a plain one.

        Raises StackFailed; HomeRefused if others have access to the folder; AlreadyRuns if a stack runs and `ports` or
        `maintained` is given; SecuredOtherwise if `secure` contradicts the home's stack; BadInput for a secured stack
        if the environment names servers.
        """
        stack = cls(home)
        if is_secured := stack._home.secured(secure):
            _require_embedded_servers()
        if stack._home.supervisor() is not None:
            if ports or maintained:
                option = "--port" if ports else "--maintenance"
                raise AlreadyRuns(f"a stack runs in {stack.home}: stop it with muster down before {option}")
            if stack.state().phase == "running":
                progress(f"A stack is already running in {stack.home}")
            else:
                await stack._until_up(None, progress)
            return stack
        supervisor = _launch(stack._home, detached, services, ports or {}, maintained, secure=is_secured)
        try:
            await stack._until_up(supervisor, progress)
        except BaseException:
            await stack.stop()
            raise
        return stack

    @classmethod
    def running(cls, home: Path) -> "Stack | None":
        """The stack in a home folder, if it is up."""
        stack = cls(home)
        return stack if stack.state().phase == "running" else None

    @classmethod
    def required(cls, home: Path) -> "Stack":
        """The stack in a home folder. Raises NotFound if it is not up."""
        stack = cls(home)
        match stack.state().phase:
            case "running":
                return stack
            case "starting":
                raise NotFound(f"the stack in {stack.home} is starting; see muster status --home {home}")
            case _:
                raise NotFound(f"no stack is running in {stack.home}; start one with: muster up --home {home}")

    def exists(self) -> bool:
        """Whether a stack was ever started in the home folder."""
        return self._home.has_stack()

    def state(self) -> State:
        """The state as the supervisor last wrote it; an empty one, `stopped`, when nothing runs."""
        state = self._home.read_state()
        return state if self._home.supervisor() == state.supervisor else State(phase="stopped")

    def service_url(self, name: str) -> str:
        """The base URL of a service's HTTP API, without a trailing slash."""
        return self.state().processes[name].address

    @property
    def admin_dsn(self) -> str:
        """The superuser's DSN of the database, which has a schema for each service, named after it."""
        return self.state().admin_dsn

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.state().bootstrap

    @property
    def kafka(self) -> "KafkaConnection":
        """The connection to Kafka; on a secured stack, the administrator's."""
        # Imported late: most commands need no server, and the clients are slow to load.
        from muster_local.servers import kafka_at

        doors = self._secured()
        return kafka_at(self.bootstrap) if doors is None else doors.connection(self.bootstrap)

    @property
    def kafka_settings(self) -> dict[str, str]:
        """The same connection as fields of KafkaSettings, without those that the environment sets."""
        doors = self._secured()
        return {"kafka_bootstrap": self.bootstrap} if doors is None else doors.administrator(self.bootstrap)

    @property
    def topic_prefix(self) -> str:
        """The prefix of each topic's and consumer group's name; empty on an embedded Kafka."""
        return self.state().topic_prefix

    @property
    def mail_dir(self) -> Path:
        """The folder in which the mail sink saves each message as an .eml file."""
        return self._home.mail

    def settings_of(self, service: str) -> dict[str, str]:
        """The environment for a service's own commands: its settings and its secrets."""
        # Imported late: most commands run no service, and Postgres's client is slow to load.
        from muster_local.programs import service_program
        from muster_operator.databases.provisioning import access_to, password_of

        state = self.state()
        database = unquote(urlsplit(state.admin_dsn).path).removeprefix("/")
        access = access_to(state.admin_dsn, database, service, password_of(state.admin_dsn))
        installation = self._home.installation((), {})
        program = service_program(service, self._home, installation, access, state.bootstrap, state.topic_prefix)
        return dict(program.environment)

    def token(self, *scopes: str, agency: str | Sequence[str] = EVERY_AGENCY, subject: str = OPERATOR) -> str:
        """A bearer token, valid for a day of real time; by default for all agencies.

        The sandbox's issuer signs it; on a secured stack, the provider. The provider issues only the tokens of the
        operator and the approver, for all agencies: raises BadInput for any other.
        """
        if (doors := self._secured()) is not None:
            if agency != EVERY_AGENCY or subject not in (OPERATOR, APPROVER):
                raise BadInput(
                    "a secured stack's provider issues only tokens of operator and approver, for all agencies ('*')"
                )
            return doors.token(scopes, subject)
        return self._home.issuer().token(scopes, agency=agency, subject=subject, lifetime=_TOKEN_LIFETIME)

    def pids(self) -> dict[str, int]:
        """The process ID of each running process, by name: postgres, kafka, mail, and the services."""
        return {name: process.pid for name, process in self.state().processes.items() if process.pid is not None}

    async def stop(self) -> bool:
        """Stop every process; keep the data. Returns whether anything was running."""
        supervisor = self._home.supervisor()
        if supervisor is None:
            return False
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(supervisor)
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, _STOP_SECONDS)
            except psutil.TimeoutExpired:
                # The kernel sends its children their stop signals.
                process.kill()
        return True

    def _secured(self) -> "Secured | None":
        installation = self._home.kept()
        if installation is None or installation.secured is None:
            return None
        # Imported late: a plain stack does not need it, and it is slow to load.
        from muster_local.secured import secured

        return secured(self._home, installation)

    async def _until_up(self, supervisor: "subprocess.Popen[bytes] | None", progress: Callable[[str], None]) -> None:
        """Wait until the stack is up, and report its steps. `supervisor` is the process if we started it."""
        told = 0
        while True:
            ended = supervisor.poll() if supervisor is not None else None
            state = self._home.read_state()
            if ended == ALREADY_RUNS:
                supervisor = ended = None
            elif ended is not None:
                ours = supervisor is not None and state.supervisor == supervisor.pid
                raise StackFailed(state.failure if ours else "\n".join(last_lines(self._home.log("supervisor"))))
            holder = self._home.supervisor()
            if holder is None and supervisor is None:
                raise StackFailed(state.failure or "it was stopped")
            if holder is not None and holder == state.supervisor:
                for step in state.steps[told:]:
                    progress(step)
                told = max(told, len(state.steps))
                if state.phase == "running":
                    return
            await asyncio.sleep(_POLL_SECONDS)


def _launch(
    home: Home,
    detached: bool,
    services: Sequence[str] | None,
    ports: Mapping[str, int],
    maintained: Sequence[str],
    *,
    secure: bool,
) -> "subprocess.Popen[bytes]":
    # Imported late: most commands start nothing, and the contracts are slow to load.
    from muster_contracts import SERVICES

    home.make()
    arguments = [f"--service={service}" for service in (SERVICES if services is None else services)]
    arguments += [f"--maintenance={service}" for service in maintained]
    arguments += [f"--port={name}={number}" for name, number in ports.items()]
    arguments += ["--secure"] if secure else []
    with home.append("supervisor") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "muster_local.supervisor", str(home.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if detached else dies_with_parent(signal.SIGTERM),
        )


def _require_embedded_servers() -> None:
    """Raise BadInput if the environment names servers, because securing those is their owner's task."""
    for name in ("MUSTER_POSTGRES_DSN", "MUSTER_KAFKA_BOOTSTRAP", "MUSTER_STACK"):
        if os.environ.get(name):
            raise BadInput(f"a secured stack runs its own servers: unset {name}")


def servers(home: Path) -> Servers | None:
    """The servers of a home's stack, for the operator's commands; None if it is not up."""
    stack = Stack.running(home)
    if stack is None:
        return None
    state = stack.state()
    return Servers(
        urls={
            name: process.address
            for name, process in state.processes.items()
            if process.address.startswith("http") and name != PROVIDER
        },
        token=stack.token,
        settings_of=stack.settings_of,
        admin_dsn=state.admin_dsn,
        kafka=stack.kafka_settings,
        topic_prefix=state.topic_prefix,
    )
