"""Kafka's storage is formatted whatever the cluster's id is: one in 64 begins with a dash."""

from pathlib import Path

from muster_local.kafka import Kafka


def test_an_id_that_begins_with_a_dash_is_no_option(tmp_path: Path) -> None:
    cluster_id = "-" + "A" * 21
    Kafka(tmp_path, port=9092, controller_port=9093, cluster_id=cluster_id).prepare()
    assert f"cluster.id={cluster_id}" in (tmp_path / "data" / "meta.properties").read_text("utf-8")
