"""Tries with real clients what an identity may do on Kafka; each attempt returns Kafka's refusal, or none."""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

SECONDS = 10.0

# The tests expect refusals, so the clients must not log them to stderr.
_silent = logging.getLogger(f"{__name__}.client")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

Refusal = str
"""The name of Kafka's error, such as TOPIC_AUTHORIZATION_FAILED; empty on success."""


class Identity:
    """An identity that connects with these librdkafka options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {**options, "socket.timeout.ms": 10_000}

    def write(
        self, topics: Collection[str], fence: str | None = None, *, idempotent: bool = True
    ) -> dict[str, Refusal]:
        """Write a record to each topic; with the transactional ID `fence`, in a transaction."""
        extra = {"transactional.id": fence} if fence else {"enable.idempotence": idempotent}
        producer = Producer({**self._options, **extra, "message.timeout.ms": 8_000, "linger.ms": 0}, logger=_silent)
        found: dict[str, Refusal] = {}

        def note(error: KafkaError | None, message: Message) -> None:
            found[str(message.topic())] = error.name() if error else ""

        try:
            if fence:
                producer.init_transactions(SECONDS)
                producer.begin_transaction()
            for topic in topics:
                producer.produce(topic, b"fact", partition=0, on_delivery=note)
            producer.flush(SECONDS)
            if fence and not any(found.values()):
                producer.commit_transaction(SECONDS)
        except KafkaException as error:
            return dict.fromkeys(topics, _name(error))
        return found

    def read(self, topics: Collection[str]) -> dict[str, Refusal]:
        """Read the first record of each topic, without a group."""
        consumer = self._consumer(f"none-{secrets.token_hex(4)}")
        # A client that may not describe a topic would wait for it silently.
        unseen = {topic: error.name() for topic in topics if (error := _seen(consumer, topic)) is not None}
        seen = [topic for topic in topics if topic not in unseen]
        consumer.assign([TopicPartition(topic, 0, 0) for topic in seen])
        # The client also looks up its group; ignore that error, since it commits no offsets.
        return unseen | _until_each(consumer, seen, as_member=False)

    def join(self, group: str, topic: str, *, commit: bool = False) -> Refusal:
        """Read a record from a topic as a member of a group; with `commit`, commit its offset."""
        consumer = self._consumer(group)
        consumer.subscribe([topic])
        return _until_each(consumer, [topic], as_member=True, commit=commit)[topic]

    def look(self, topic: str) -> Refusal:
        """Describe the settings of a topic."""
        return self.administer(lambda admin: admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))

    def fence(self, transactional_id: str) -> Refusal:
        """Fence the earlier producers of a transactional ID."""
        producer = Producer({**self._options, "transactional.id": transactional_id}, logger=_silent)
        try:
            producer.init_transactions(SECONDS)
        except KafkaException as error:
            return _name(error)
        return ""

    def administer(self, ask: Callable[[Any], Any]) -> Refusal:
        """Send an administrator's request, which returns a future, or a mapping of futures."""
        admin = AdminClient(self._options, logger=_silent)
        try:
            answer = ask(admin)
            for future in answer.values() if isinstance(answer, dict) else [answer]:
                future.result(SECONDS)
        except KafkaException as error:
            return _name(error)
        return ""

    def _consumer(self, group: str) -> Consumer:
        extra = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        return Consumer({**self._options, **extra}, logger=_silent)


def _until_each(
    consumer: Consumer, topics: Collection[str], *, as_member: bool, commit: bool = False
) -> dict[str, Refusal]:
    found: dict[str, Refusal] = {}
    give_up_at = time.monotonic() + SECONDS
    try:
        while found.keys() < set(topics) and time.monotonic() < give_up_at:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None and commit:
                consumer.commit(message=message, asynchronous=False)
            if error is None or message.topic():
                found.setdefault(str(message.topic()), error.name() if error else "")
            elif as_member:  # without a topic, the error is the group's
                found |= dict.fromkeys(topics, error.name())
    finally:
        consumer.close()
    return dict.fromkeys(topics, "nothing read") | found


def _seen(consumer: Consumer, topic: str) -> KafkaError | None:
    """The error from describing a topic, if any."""
    error: KafkaError | None = consumer.list_topics(topic, SECONDS).topics[topic].error
    return error


def _name(error: KafkaException) -> Refusal:
    name: str = error.args[0].name()
    return name
