"""Postgres and Kafka: the suite's own, to be killed, stopped and filled up; or borrowed, to be left as they are."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster_local.child import Program, dies_with_parent
from muster_local.kafka import Kafka, new_cluster_id
from muster_local.postgres import Postgres
from muster_local.private import append
from tests.support.eventually import eventually

START_SECONDS = 90


class Process:
    """A program's process, started and signaled by a test. It does not outlive the test's process."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, or the last one if it has ended."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it, if one did."""
        return None if self._popen is None else self._popen.poll()

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it."""
        with append(self.log) as output:
            self._popen = subprocess.Popen(
                self.program.command,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self.program.user,
                group=self.program.user,
                extra_groups=None if self.program.user is None else [],
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        if self.runs:
            self.send(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()

    def stop(self, seconds: float = 30) -> float:
        """Ask it to stop; returns how many seconds it took, and raises TimeoutExpired if it takes too long."""
        started = time.monotonic()
        if self.runs:
            self.send(signal.SIGCONT)
            self.send(self.program.stop_signal)
        if self._popen is not None:
            self._popen.wait(seconds)
        return time.monotonic() - started

    def said(self) -> str:
        """All that it has written."""
        return self.log.read_text("utf-8", "replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines about an event in its log, which must be a service's."""
        complete, _, _ = self.said().rpartition("\n")
        lines = [json.loads(line) for line in complete.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


class Server(Process):
    """A server, which is up once it answers in its own protocol."""

    def __init__(self, program: Program, log: Path, answers: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(program, log)
        self._answers = answers

    @property
    def address(self) -> str:
        """Where it answers."""
        return self.program.address

    async def up(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        if not self.runs:
            self.start()
        try:
            await eventually(self._answers, timeout=START_SECONDS)
        except AssertionError:
            ended = "it runs" if self.runs else f"it has ended: {self.exit_status}"
            raise AssertionError(f"{self.program.name} does not answer; {ended}\n{self.said()[-3000:]}") from None


@dataclass(frozen=True)
class Borrowed:
    """Somebody else's server: it is used where it is, and there is no way to start, stop or break it."""

    address: str

    async def up(self) -> None:
        """It is up, or its owner knows why not."""


def postgres(folder: Path, parameters: Mapping[str, str] | None = None) -> Server:
    """A Postgres of its own, in a folder `postgres` of `folder`."""
    server = Postgres(folder / "postgres", free_port(), secrets.token_hex(16), parameters or {})
    server.prepare()
    program = Program("postgres", server.command(), server.dsn, stop_signal=signal.SIGINT, user=server.user)
    return Server(program, folder / "postgres.log", server.answers)


def kafka(folder: Path, port: int | None = None, advertised_port: int | None = None) -> Server:
    """A Kafka broker of its own, in a folder `kafka` of `folder`; clients are given the advertised port, a proxy's."""
    broker = Kafka(folder / "kafka", port or free_port(), free_port(), advertised_port=advertised_port)
    return _broker(broker, folder / "kafka.log")


def kafka_quorum(folder: Path, nodes: int) -> list[Server]:
    """Brokers that are one cluster. A topic's leader may die as long as most of them live."""
    cluster_id, numbers = new_cluster_id(), range(1, nodes + 1)
    controllers = {node: free_port() for node in numbers}
    return [_node(folder, node, free_port(), cluster_id, controllers, nodes) for node in numbers]


def kafka_cluster(folder: Path, brokers: int) -> tuple[Server, list[Server]]:
    """A controller and its brokers: it sees which ones are in sync even when most of them are down."""
    cluster_id, numbers = new_cluster_id(), range(1, brokers + 1)
    controllers = {brokers + 1: free_port()}
    controller = _node(folder, brokers + 1, None, cluster_id, controllers, brokers)
    return controller, [_node(folder, node, free_port(), cluster_id, controllers, brokers) for node in numbers]


def _node(
    folder: Path, node: int, port: int | None, cluster_id: str, controllers: Mapping[int, int], replicas: int
) -> Server:
    """A node of a cluster; without a port it is only a controller, and no client can reach it."""
    kafka = Kafka(
        folder / f"kafka-{node}",
        port,
        controllers.get(node),
        heap="320m",
        node=node,
        cluster_id=cluster_id,
        quorum={voter: f"127.0.0.1:{voters_port}" for voter, voters_port in controllers.items()},
        replicas=replicas,
    )
    return _broker(kafka, folder / f"kafka-{node}.log")


def _broker(broker: Kafka, log: Path) -> Server:
    broker.prepare()
    return Server(Program("kafka", broker.command(), broker.bootstrap), log, broker.answers)


_given_out: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that was not chosen before.

    It is below those that the kernel gives to outgoing connections.
    """
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with socket.socket() as probe:
            if port not in _given_out and probe.connect_ex(("127.0.0.1", port)) != 0:
                _given_out.add(port)
                return port
