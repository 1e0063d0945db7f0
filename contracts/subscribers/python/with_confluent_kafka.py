"""Print every seat fact, with confluent-kafka (librdkafka, no asyncio). Run one instance; a second one is refused."""

import os
from typing import cast

from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from connection import for_librdkafka
from reading import TOPIC_IN_KAFKA, Log, Printer, refuse_a_second, stopping

GROUP = os.environ.get("GROUP", "seats-with-confluent-kafka")


def main() -> None:
    """Read from the beginning, and commit each record once it is handled."""
    admin = AdminClient(for_librdkafka())
    cluster = admin.describe_cluster().result()
    topic = admin.describe_topics(TopicCollection([TOPIC_IN_KAFKA]))[TOPIC_IN_KAFKA].result()
    printer = Printer(Log(GROUP, cluster.cluster_id, str(topic.topic_id)))
    refuse_a_second(GROUP, members(admin))
    consumer = Consumer(
        {
            **for_librdkafka(),
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    joined = False

    def assigned(*_: object) -> None:
        nonlocal joined
        if not joined:  # later, a second one may be a member until it has seen this one
            refuse_a_second(GROUP, members(admin) - 1)
            printer.waits()
            joined = True

    consumer.subscribe([TOPIC_IN_KAFKA], on_assign=assigned)
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            # The types allow more than a consumer ever gets.
            headers = cast("list[tuple[str, bytes]]", message.headers() or [])
            printer.take(headers, message.value(), message.key())
            consumer.commit(message=message, asynchronous=False)
    finally:
        # Leaves the group, so that the next instance may start at once.
        consumer.close()


def members(admin: AdminClient) -> int:
    """How many members the group has now."""
    return len(admin.describe_consumer_groups([GROUP])[GROUP].result().members)


if __name__ == "__main__":
    with stopping():
        main()
