"""A Kafka node's configuration, and its storage, which is formatted whatever the cluster's id is."""

from pathlib import Path

from muster_local.container import EVERYWHERE
from muster_local.kafka import Kafka


def test_an_id_that_begins_with_a_dash_is_not_taken_for_an_option(tmp_path: Path) -> None:
    cluster_id = "-" + "A" * 21
    Kafka(tmp_path, port=9092, controller_port=9093, cluster_id=cluster_id).prepare()
    assert f"cluster.id={cluster_id}" in (tmp_path / "data" / "meta.properties").read_text("utf-8")


def test_a_node_of_a_cluster_listens_everywhere_and_says_where_it_is_reached(tmp_path: Path) -> None:
    voters = {number: f"kafka-{number}.kafka:9093" for number in range(3)}
    node = Kafka(
        tmp_path,
        9092,
        9093,
        node=0,
        cluster_id="A" * 22,
        quorum=voters,
        replicas=3,
        host=EVERYWHERE,
        advertised_host="kafka-0.kafka",
        advertised_port=19092,
    )
    node.prepare()
    properties = (tmp_path / "server.properties").read_text("utf-8").splitlines()
    assert {
        "listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093",
        "advertised.listeners=PLAINTEXT://kafka-0.kafka:19092,CONTROLLER://kafka-0.kafka:9093",
        "controller.quorum.voters=0@kafka-0.kafka:9093,1@kafka-1.kafka:9093,2@kafka-2.kafka:9093",
        "min.insync.replicas=2",
    } <= set(properties)
