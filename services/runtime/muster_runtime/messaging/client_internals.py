"""The non-public parts of aiokafka and FastStream that we use. Only client_closing and bounded_decoding use others.

Run tests/faults after every update of either library: it covers each of these.
"""

import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, SupportsIndex

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition, conn
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from faststream.kafka.subscriber.usecase import BatchSubscriber
from pydantic import SecretStr

# The fraction of a login's lifetime after which the connection is closed.
LOGIN_SHARE = 0.8

Subscriber = BatchSubscriber


class LiveText(str):
    """A SCRAM user name or password that is read again at each authentication.

    aiokafka's `AIOKafkaClient` keeps the text that it was created with, and accepts a callback only for tokens. Its
    `ScramAuthenticator` calls these two methods when it authenticates.
    """

    _secret: SecretStr

    def __new__(cls, secret: SecretStr) -> "LiveText":
        """Create it as an empty string, so that nothing stores or logs an old secret."""
        text = super().__new__(cls)
        text._secret = secret
        return text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The current password as bytes."""
        return self._secret.get_secret_value().encode(encoding, errors)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        """The current user name, with `old` replaced."""
        return self._secret.get_secret_value().replace(old, new, count)


class _Connection(AIOKafkaConnection):
    """A connection that closes itself between two requests, before its login expires.

    Kafka ends a login after `connections.max.reauth.ms`, or when its token expires, by cutting the connection at the
    next request (KIP-368). Kafka's own clients log in again before that. aiokafka cannot: it takes the cut for a
    network failure, logs errors, and waits before it resends what was in flight.
    """

    login_seconds: float | None = None  # how long Kafka lets its login last; 0 is as long as the connection
    _ends = False

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request. Raises KafkaConnectionError. The response to a login says how long the login lasts.

        For a moment after a connection reset, aiokafka considers the connection open, and uvloop's transport raises a
        RuntimeError that aiokafka does not expect. That error would end the task that updates the metadata of the
        client or its group, and the client would wait for that task forever.
        """
        try:
            answer = super().send(request, expect_response)  # type: ignore[no-untyped-call]
        except KafkaError:  # also a RuntimeError
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
        return self._noting_login(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _noting_login(self, answer: Any) -> Any:
        response = await answer
        if (lifetime_ms := getattr(response, "session_lifetime_ms", None)) is not None:
            self.login_seconds = lifetime_ms / 1000
        if self.login_seconds:
            self._loop.call_later(self.login_seconds * LOGIN_SHARE, _end, weakref.ref(self))
        return response

    def close(self, reason: CloseReason | None = None, exc: Exception | None = None) -> Any:
        """Close at once, without waiting for data that is still being sent or received.

        Over TLS, uvloop's transport would wait up to 30 seconds for the broker to close its side. It does not see that
        close while an unread response is in front of it.
        """
        writer = self._writer
        closed = super().close(reason=reason, exc=exc)  # type: ignore[no-untyped-call]
        if writer is not None:
            writer.transport.abort()
        return closed

    def _handle_frame(self, response: bytes) -> None:
        super()._handle_frame(response)  # type: ignore[no-untyped-call]
        self._close_between_requests()

    def end(self) -> None:
        """Close as soon as no request is waiting for its response."""
        self._ends = True
        self._close_between_requests()

    def _close_between_requests(self) -> None:
        if self._ends and not self._requests:
            self.close(reason=CloseReason.IDLE_DROP)


def _end(connection: "weakref.ref[_Connection]") -> None:
    if living := connection():
        living.end()


# aiokafka has no option for the connection class.
conn.AIOKafkaConnection = _Connection  # type: ignore[misc]


def enable_rebootstrap(kafka: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> None:
    """Let a long-lived client return to its bootstrap list if none of the brokers it knows answers.

    Kafka's own clients do this (KIP-899). aiokafka asks only the brokers in the last metadata, which omits brokers that
    were down (aio-libs/aiokafka#456, #459). A client that refreshes while only one broker is up never finds the others
    after that one fails. The client may already be started.
    """
    client = kafka.client if isinstance(kafka, AIOKafkaProducer) else kafka._client
    cluster: Any = client.cluster
    note_failure = cluster.failed_update

    def failed_update(error: Exception | None) -> None:
        note_failure(error)
        nodes = [(f"bootstrap-{number}", host, port) for number, (host, port, _) in enumerate(client.hosts)]
        # aiokafka cannot forget brokers. Partitions keep their leaders until the next metadata update.
        cluster._brokers = {node: BrokerMetadata(node, host, port, None) for node, host, port in nodes}

    cluster.failed_update = failed_update  # called if no known broker answered


async def forbidden_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[str]:
    """Those of the topics that this process may not describe. A list of all topics omits them.

    aiokafka's own request for single topics would create them on a broker that creates topics automatically.
    """
    answer = await admin._send_request(MetadataRequest(list(names), allow_auto_topic_creation=False))
    found = [(topic["topic"], topic["error_code"]) for topic in answer.to_object()["topics"]]
    return [name for name, code in found if code == TopicAuthorizationFailedError.errno]


def brokers_of(admin: AIOKafkaAdminClient) -> list[tuple[str, int]]:
    """The host and port of each broker that the client knows."""
    return sorted((broker.host, broker.port) for broker in admin._client.cluster.brokers())


async def login_seconds(host: str, port: int, options: Mapping[str, Any]) -> float | None:
    """How long a broker lets this process stay logged in: 0 is as long as its connection, None is without a login.

    Raises KafkaError, OSError, or TimeoutError if the broker cannot be reached or refuses the login.
    """
    connection = await conn.create_conn(host, port, **options)
    await connection.close()
    seconds: float | None = connection.login_seconds
    return seconds


def leaderless(consumer: AIOKafkaConsumer) -> Collection[TopicPartition]:
    """The assigned partitions without a leader.

    Asking the consumer for their offsets would block until they have one.
    """
    cluster = consumer._client.cluster
    return [p for p in consumer.assignment() if cluster.leader_for_partition(p) in (None, -1)]


def client_of(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    """The client that sends a consumer's requests."""
    return consumer._client


def assignment_of(consumer: AIOKafkaConsumer) -> object:
    """The consumer's assignment object. Every assignment creates a new one, even of the same partitions."""
    return consumer._subscription.subscription.assignment


def known_position(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset that the consumer reads next; None if it is unknown.

    `consumer.position` would wait until it is known.
    """
    state = consumer._subscription.subscription.assignment.state_value(partition)
    if state is None or not state.has_valid_position:
        return None
    position: int = state.position
    return position


def has_broken_down(consumer: AIOKafkaConsumer) -> bool:
    """Whether one of the consumer's own tasks has ended with an error that aiokafka did not expect.

    After that, every poll raises the error or returns nothing. Only a new client helps.
    """
    coordinator: Any = consumer._coordinator
    fetcher: Any = consumer._fetcher
    in_group = isinstance(coordinator, GroupCoordinator)
    coordination = coordinator._coordination_task if in_group else coordinator._reset_committed_task
    return any(task.done() for task in (coordination, fetcher._fetch_task))


def hold_fetches(consumer: AIOKafkaConsumer, wait_ms: int, min_bytes: int = 1) -> None:
    """Let the broker hold the consumer's next fetches for `wait_ms` while they find less than `min_bytes`.

    In aiokafka, these are options of a new client.
    """
    fetcher: Any = consumer._fetcher
    fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = wait_ms, min_bytes


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer rejoin its group after Kafka denied it access to the group.

    aiokafka's heartbeat ends at that error, and only a rebalance starts it again.
    """
    coordinator: Any = consumer._coordinator
    coordinator.request_rejoin()


def batch_subscriber(
    broker: KafkaBroker,
    topics: Collection[str],
    poll: Callable[[AIOKafkaConsumer], Coroutine[Any, Any, tuple[ConsumerRecord[bytes, bytes], ...]]],
    handle: Callable[[Any], Awaitable[None]],
    **options: Any,
) -> Subscriber:
    """A subscriber that gets its batches from `poll` and passes them to `handle` unchanged.

    FastStream's own batch is one `getmany`. That stops at the first partition with records that cannot be decoded, and
    returns everything of one partition before the next. FastStream's own parser takes three times as long as all of our
    code, and a replacement parser must put a consumer in each message. There is no option for either.
    """
    subscriber: Subscriber = broker.subscriber(*topics, batch=True, parser=_parse, decoder=_decode, **options)
    subscriber(handle)
    subscriber.get_msg = poll  # type: ignore[assignment, method-assign]
    return subscriber


async def _parse(raw: Sequence[ConsumerRecord[bytes, bytes]]) -> KafkaMessage:
    return KafkaMessage(raw_message=tuple(raw), body=b"", consumer=FAKE_CONSUMER)


async def _decode(message: KafkaMessage) -> Any:
    return message.raw_message
