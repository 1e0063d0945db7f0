"""Print every seat fact, with confluent-kafka (librdkafka, no asyncio)."""

from typing import cast

from confluent_kafka import Consumer, KafkaException
from reading import BOOTSTRAP, GROUP, PREFIX, TOPIC, Printer


def main() -> None:
    """Read from the beginning, and commit each record once it is handled."""
    printer = Printer()
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([PREFIX + TOPIC])
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            # The types allow for more than a consumer ever gets.
            headers = cast("list[tuple[str, bytes]]", message.headers() or [])
            printer.take(headers, message.value(), message.key())
            consumer.commit(message=message, asynchronous=False)
    finally:
        # Leaves the group, so that another instance takes over at once.
        consumer.close()


if __name__ == "__main__":
    main()
