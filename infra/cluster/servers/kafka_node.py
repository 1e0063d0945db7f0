"""A node of Kafka in a pod, broker and controller, by TLS alone: who connects logs in, or shows a certificate."""

import os
import socket
from pathlib import Path

from muster_local.kafka import Kafka
from muster_local.kafka_security import KafkaSecurity

CERTIFICATES = Path("/certificates")
CLUSTER = "TXVzdGVyS3ViZXJuZXRlcw"
CLIENTS, CONTROLLERS, BROKERS = 9092, 9093, 9094


class PodNode(Kafka):
    """A node that the others, and its clients, find by its pod's name."""

    def _properties(self) -> str:
        lines = dict(line.split("=", 1) for line in super()._properties().splitlines())
        here = socket.getfqdn()
        domain = here.partition(".")[2]
        lines["listeners"] = lines["listeners"].replace("127.0.0.1", "0.0.0.0")  # noqa: S104
        lines["advertised.listeners"] = lines["advertised.listeners"].replace("127.0.0.1", here)
        voters = [f"{node}@kafka-{node - 1}.{domain}:{port}" for node, port in self.quorum.items()]
        lines["controller.quorum.voters"] = ",".join(voters)
        return "".join(f"{name}={value}\n" for name, value in lines.items())


def main() -> None:
    """Become the node; its number is its pod's."""
    brokers = int(os.environ["BROKERS"])
    node = PodNode(
        Path("/data/kafka"),
        CLIENTS,
        CONTROLLERS,
        node=int(socket.gethostname().rpartition("-")[2]) + 1,
        cluster_id=CLUSTER,
        quorum=dict.fromkeys(range(1, brokers + 1), CONTROLLERS),
        replicas=brokers,
        security=KafkaSecurity(
            CERTIFICATES / "broker.both.pem",
            CERTIFICATES / "ca.pem",
            os.environ["KAFKA_PASSWORD"],
            certificate_port=BROKERS,
        ),
    )
    node.prepare()
    command = list(node.command())
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
