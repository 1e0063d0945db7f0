"""The stage: Postgres, Kafka, the mail sink, a webhook receiver, and two replicas of each of the four services."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from muster_contracts import SERVICES, topics
from muster_local.child import Program
from muster_local.demo.program import ProgramClient
from muster_local.home import Home, Installation, ProcessState, State
from muster_local.programs import MAIL, mail_sink, migrations_of, service_program
from muster_local.readiness import ask
from muster_local.receiver import Receiver
from muster_local.scopes import SCOPES
from muster_local.servers import CONTROLLER, KAFKA, POSTGRES, embedded_kafka, embedded_postgres, kafka_at
from muster_local.stack import Stack
from muster_operator.databases.provisioning import Access, password_of, provision
from muster_operator.topics import create_topics
from muster_runtime.database.dbmate import migrate
from tests.faults.readiness import health
from tests.faults.servers import Process, Server, free_port
from tests.support.eventually import eventually

READY_SECONDS = 300

# Of each service: what holds for one must also hold while another runs beside it.
REPLICAS = 2

# In place of a supervisor: how soon a service that has ended on its own is restarted.
RESTART_SECONDS = 0.2


class Stage:
    """Everything runs, and what ends on its own is restarted. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._home = Home(folder / "home").make()
        self._exit = AsyncExitStack()
        self._accesses: dict[str, Access] = {}
        self._installation: Installation
        self.stack = Stack(self._home.path)
        self.postgres: Server
        self.kafka: Server
        self.mail: Process
        self.services: dict[str, list[Process]] = {}
        self.receiver: Receiver
        self.program: ProgramClient
        self.restarts = 0

    async def __aenter__(self) -> Self:
        # The home's lock marks this process as its supervisor, so that everything finds the servers.
        self._exit.enter_context(self._home.held())
        self._home.issuer()
        self._installation = self._home.installation([POSTGRES, KAFKA, CONTROLLER, MAIL, *SERVICES], {})
        self.postgres = _server(embedded_postgres(self._home.path, self._installation), self._home)
        self.kafka = _server(embedded_kafka(self._home.path, self._installation, SERVICES), self._home)
        self.mail = Process(mail_sink(self._home, self._installation), self._home.log(MAIL))
        await self.postgres.up()
        await self.kafka.up()
        self.mail.start()
        await create_topics(kafka_at(self.kafka.program.address), "", topics().values())
        for service in SERVICES:
            await self._provision(service)
            self.services[service] = [self._service(service, replica) for replica in range(REPLICAS)]
            for process in self.services[service]:
                process.start()
        self._tell_where_things_are()
        keeper = asyncio.create_task(self._keep())
        self._exit.callback(keeper.cancel)
        await self.ready()
        self.receiver = await Receiver.start(self._home.path / "receiver", lives_with=os.getpid())
        self._exit.push_async_callback(self.receiver.stop)
        urls = {service: replicas[0].program.address for service, replicas in self.services.items()}
        self.program = await self._exit.enter_async_context(ProgramClient(urls, self.stack.token(*SCOPES)))
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()
        for process in (*chain.from_iterable(self.services.values()), self.mail, self.kafka, self.postgres):
            process.kill()

    async def ready(self, *names: str) -> None:
        """Wait until every replica of services, by default all, can do its work."""
        for name in names or SERVICES:
            for replica in range(REPLICAS):
                await eventually(
                    lambda: health(self.services[name][replica]),  # noqa: B023 - awaited in turn
                    timeout=READY_SECONDS,
                )

    def restart(self, service: str, replica: int, breaking: Sequence[str] = ()) -> Process:
        """Kill a replica of a service if it runs, and start it again; `breaking` are the launcher's options."""
        self.services[service][replica].kill()
        process = self.services[service][replica] = self._service(service, replica, breaking)
        process.start()
        return process

    def start_beside(self, service: str) -> Process:
        """Start one more process of a service that only consumes."""
        process = self._service(service, REPLICAS, role="consumer")
        process.start()
        return process

    async def _provision(self, service: str) -> None:
        dsn = self.postgres.program.address
        self._accesses[service] = await provision(dsn, "muster", service, password_of(dsn))
        await asyncio.to_thread(migrate, self._accesses[service].owner_dsn, service, migrations_of(service))

    def _service(self, service: str, replica: int, breaking: Sequence[str] = (), role: str = "all") -> Process:
        """A process of a service; the first replica has the installation's port, each other one of its own."""
        installation = self._installation
        if replica:
            installation = installation.model_copy(update={"ports": installation.ports | {service: free_port()}})
        bootstrap = self.kafka.program.address
        program = service_program(service, self._home, installation, self._accesses[service], bootstrap, "", role)
        launcher = [sys.executable, "-m", "tests.faults.launcher", *breaking, "-m"]
        environment = dict(program.environment) | {
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "MUSTER_INSTANCE": f"{service}-{replica + 1}",
        }
        program = replace(program, command=[*launcher, *program.command[2:]], environment=environment)
        return Process(program, self._home.log(f"{service}-{replica + 1}"))

    async def _keep(self) -> None:
        """A service that has ended, for whatever reason, is started again."""
        while True:
            await asyncio.sleep(RESTART_SECONDS)
            for service, replicas in self.services.items():
                for replica, process in enumerate(replicas):
                    if not process.runs:
                        self.restarts += process.exit_status != -signal.SIGKILL
                        self.restart(service, replica)

    def _tell_where_things_are(self) -> None:
        processes = [self.postgres, self.kafka, self.mail, *(replicas[0] for replicas in self.services.values())]
        self._home.write_state(
            State(
                supervisor=os.getpid(),
                phase="running",
                admin_dsn=next(iter(self._accesses.values())).admin_dsn,
                bootstrap=self.kafka.program.address,
                processes={p.program.name: _state(p) for p in processes},
            )
        )


def _server(program: Program, home: Home) -> Server:
    async def answers() -> bool:
        return (await ask(program.name, program.address)).ready

    return Server(program, home.log(program.name), answers)


def _state(process: Process) -> ProcessState:
    return ProcessState(name=process.program.name, address=process.program.address)
