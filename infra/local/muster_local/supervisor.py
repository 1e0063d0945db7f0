"""The process that runs a stack: starts its programs in order, restarts those that die, and stops them all.

`muster up` runs it as `python -m muster_local.supervisor HOME [--service NAME]… [--port NAME=NUMBER]…`.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muster_local.child import Child, Program
from muster_local.home import ALREADY_RUNS, Home, Installation, Phase, ProcessState, State
from muster_local.programs import MAIL, mail_sink, migrations_of, service_program
from muster_local.readiness import ask
from muster_local.secured import Secured, secured
from muster_local.servers import (
    KAFKA,
    containers,
    embedded_kafka,
    embedded_listeners,
    embedded_postgres,
    external_kafka,
    external_postgres,
    kafka_at,
    secured_listeners,
)
from muster_operator.databases.provisioning import Access, password_of, provision
from muster_operator.topic_plan import apply as apply_topics
from muster_runtime.clock import SystemClock
from muster_runtime.database.dbmate import migrate
from muster_runtime.messaging.connection import KafkaConnection

_START_SECONDS = 120.0
_POLL_SECONDS = 0.05

# After this many restarts without becoming ready, a program fails the start.
_RESTARTS = 2

# A program that keeps dying restarts after increasing pauses; after a long enough run, the first pause applies again.
_FIRST_PAUSE, _LONGEST_PAUSE, _HELD_OUT_SECONDS = 0.2, 10.0, 60.0


class StartFailed(Exception):
    """A program did not become ready; the message names it and says why."""


class Supervisor:
    """Runs the stack of one home."""

    def __init__(
        self, home: Home, services: Sequence[str], ports: Mapping[str, int], maintained: Sequence[str], *, secure: bool
    ) -> None:
        self._home = home
        self._maintained = maintained
        self._services = services
        self._ports = ports
        self._secure = secure
        self._secured: Secured | None = None
        self._connect: Callable[[str], KafkaConnection] = kafka_at
        self._state = State(supervisor=os.getpid())
        self._children: list[Child] = []
        self._keepers: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 if the start failed."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_, stopped.set)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await stopping
            return 0
        except Exception as error:
            logging.exception("the start failed")
            self._state.failure = _reason(error)
            return 1
        finally:
            starting.cancel()
            await asyncio.wait([starting])
            await self._stop()

    async def _start(self) -> None:
        self._enter("starting")
        mail = [MAIL] if self._services else []
        servers = secured_listeners() if self._secure else embedded_listeners()
        listeners = [*servers, *mail, *self._services]
        installation = self._home.installation(listeners, self._ports, secure=self._secure)
        self._secured = secured(self._home, installation)
        if self._secured is None:
            self._home.issuer()
        else:
            self._connect = self._secured.connection
        await self._start_servers(installation)
        if self._services:
            accesses = await self._provision(installation)
            await self._start_services(installation, accesses)
        self._step("Everything is ready")
        self._enter("running")

    async def _start_servers(self, installation: Installation) -> None:
        """Start Postgres, Kafka, and a secured stack's provider, or wait for servers that the environment names."""
        doors = self._secured
        self._step("Starting Postgres and Kafka" if doors is None else "Starting Postgres, Kafka, and the provider")
        self._state.admin_dsn = external_postgres() or ""
        self._state.bootstrap = external_kafka() or ""
        # On a shared server, everything of ours has the stack's name.
        self._state.topic_prefix = f"muster-{installation.name}." if external_kafka() else ""

        async def postgres() -> None:
            if not self._state.admin_dsn:
                security = doors.postgres() if doors else None
                program = await asyncio.to_thread(embedded_postgres, self._home.path, installation, security)
                self._state.admin_dsn = program.address
                await self._run(program)
            await self._until_ready("postgres", self._state.admin_dsn)

        async def kafka() -> None:
            if not self._state.bootstrap:
                secure = doors.kafka() if doors else None
                program = await asyncio.to_thread(embedded_kafka, self._home.path, installation, self._services, secure)
                self._state.bootstrap = program.address
                await self._run(program)
            await self._until_ready("kafka", self._state.bootstrap)

        async def provider() -> None:
            if doors is not None:
                program = await asyncio.to_thread(doors.provider)
                await self._run(program)
                await self._until_ready(program.name, program.address)

        await _all(postgres(), kafka(), provider())

    async def _provision(self, installation: Installation) -> dict[str, Access]:
        """Create topics, databases, schemas, and roles; then run each service's migrations as its owner role."""
        self._step("Creating topics, roles, and schemas")
        await apply_topics(self._connect(self._state.bootstrap), self._state.topic_prefix, sandbox=True)
        if self._secured is not None:
            await self._secured.admit(self._state.bootstrap, self._services)
        database = f"muster_{installation.name}" if external_postgres() else "muster"
        secret = password_of(self._state.admin_dsn)
        accesses = {
            service: await provision(self._state.admin_dsn, database, service, secret) for service in self._services
        }
        self._step("Migrating the schemas")
        await _all(
            *(
                asyncio.to_thread(migrate, access.owner_dsn, service, migrations_of(service))
                for service, access in accesses.items()
            )
        )
        self._state.admin_dsn = next(iter(accesses.values())).admin_dsn
        return accesses

    async def _start_services(self, installation: Installation, accesses: Mapping[str, Access]) -> None:
        self._step(f"Starting {', '.join(self._services)}")
        bootstrap, prefix = self._state.bootstrap, self._state.topic_prefix
        programs = [mail_sink(self._home, installation)] + [
            service_program(
                service,
                self._home,
                installation,
                access,
                bootstrap,
                prefix,
                role="operations" if service in self._maintained else "all",
                write_secrets=True,
            )
            for service, access in accesses.items()
        ]
        for program in programs:
            await self._run(program)
        await _all(*(self._until_ready(program.name, program.address) for program in programs))

    async def _run(self, program: Program) -> None:
        """Start a program and keep it running."""
        child = Child(program, self._home.log(program.name))
        self._children.append(child)
        state = ProcessState(name=program.name, address=program.address, maintenance=program.name in self._maintained)
        self._state.processes[program.name] = state
        await child.start()
        self._record(child)
        self._keepers.append(asyncio.create_task(self._keep(child)))

    async def _keep(self, child: Child) -> None:
        """Restart a program whenever it dies."""
        name, pause = child.program.name, _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            ended = await child.wait()
            logging.warning("%s %s", name, ended)
            state = self._state.processes[name]
            state.last_exit, state.last_exit_at, state.last_lines = ended, SystemClock().now(), child.last_lines()
            self._record(child)
            pause = _FIRST_PAUSE if loop.time() - since > _HELD_OUT_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
            await child.start()
            state.restarts += 1
            self._record(child)
            logging.warning("%s restarted as %s", name, child.pid)

    async def _until_ready(self, name: str, address: str) -> None:
        """Wait until a program is ready. Raises StartFailed if it keeps dying or takes too long."""
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        connection = self._connect(address) if name == KAFKA else None
        while not (answer := await ask(name, address, connection)).ready:
            process = self._state.processes.get(name)
            if process is not None and process.pid is None and process.restarts >= _RESTARTS:
                said = process.last_lines or ["no output"]
                raise StartFailed("\n".join([f"{name} {process.last_exit}:", *said]))
            if asyncio.get_running_loop().time() > deadline:
                raise StartFailed(f"{name} is not ready after {_START_SECONDS:.0f} s: {'; '.join(answer.reasons)}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _stop(self) -> None:
        """Stop the programs: first those that use Postgres and Kafka, then these."""
        self._enter("stopping")
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        servers = [child for child in self._children if child.program.name in ("postgres", "kafka")]
        others = [child for child in self._children if child not in servers]
        for group in (others, servers):
            await asyncio.gather(*(child.stop() for child in group))
        self._state.processes = {}
        self._enter("failed" if self._state.failure else "stopped")

    def _record(self, child: Child) -> None:
        self._state.processes[child.program.name].pid = child.pid
        self._home.write_state(self._state)

    def _step(self, step: str) -> None:
        logging.info(step)
        self._state.steps.append(step)
        self._home.write_state(self._state)

    def _enter(self, phase: Phase) -> None:
        self._state.phase = phase
        self._home.write_state(self._state)


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or repr(error)


async def _all(*work: Coroutine[Any, Any, None]) -> None:
    """Run all concurrently; the first error cancels the rest."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


def main(arguments: Iterable[str]) -> int:
    """Supervise the home that the arguments name. Returns ALREADY_RUNS if another supervisor holds it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--service", action="append", default=[])
    parser.add_argument("--port", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--maintenance", action="append", default=[], metavar="NAME")
    parser.add_argument("--secure", action="store_true")
    options = parser.parse_args(list(arguments))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.umask(0o077)  # the programs inherit it
    home = Home(options.home).make()
    ports = {name: int(number) for name, _, number in (port.partition("=") for port in options.port)}
    try:
        with home.held():
            return _supervise(
                Supervisor(home, options.service, ports, options.maintenance, secure=options.secure), home
            )
    except BlockingIOError:
        return ALREADY_RUNS


def _supervise(supervisor: Supervisor, home: Home) -> int:
    try:
        with containers(home.path):
            return asyncio.run(supervisor.run())
    except Exception as error:
        logging.exception("the supervisor failed")
        home.write_state(State(supervisor=os.getpid(), phase="failed", failure=_reason(error)))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
