"""The text about waiting streams."""

from aiokafka import TopicPartition

from muster_runtime.messaging.flight import Flight


def test_one_stream_waits_and_two_wait() -> None:
    flight = Flight("", lambda: None)
    one, two = (TopicPartition("muster.billing.term", number) for number in range(2))
    flight._waiting = {one: {("muster.billing.term", "NASA")}, two: {("muster.billing.term", "GSA"), ("t", "GSA")}}
    assert flight.reasons == [
        "muster.billing.term[0] has no leader; 1 stream waits",
        "muster.billing.term[1] has no leader; 2 streams wait",
    ]
