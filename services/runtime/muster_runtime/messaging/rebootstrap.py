"""Kafka clients that return to their bootstrap list when none of the brokers that they know answers.

Kafka's own clients do this (KIP-899). aiokafka asks only the brokers of the last metadata, which leaves out those that
were down: a client that has refreshed while one broker was up alone never finds the others once that one dies.
"""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.structs import BrokerMetadata


def enable_rebootstrap(client: AIOKafkaClient) -> None:
    """Let a long-lived client return to its bootstrap list. It may have started already."""
    cluster: Any = client.cluster
    note_failure = cluster.failed_update

    def failed_update(error: Exception | None) -> None:
        note_failure(error)
        nodes = [(f"bootstrap-{number}", host, port) for number, (host, port, _) in enumerate(client.hosts)]
        # A client gives no other way to forget brokers. Partitions keep their leaders until the next metadata.
        cluster._brokers = {node: BrokerMetadata(node, host, port, None) for node, host, port in nodes}

    cluster.failed_update = failed_update  # called when no known broker has answered
