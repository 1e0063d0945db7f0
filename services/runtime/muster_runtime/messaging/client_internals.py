"""What aiokafka and FastStream do not offer publicly. Beside it, only client_closing reaches into them.

Tried at every update of either: tests/faults needs each of these.
"""

import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
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

# The share of a login's time after which its connection ends.
LOGIN_SHARE = 0.8

Records = Sequence[ConsumerRecord[bytes, bytes]]

Subscriber = BatchSubscriber


class LiveText(str):
    """A user's name or password for SCRAM that is read again at each authentication.

    aiokafka keeps the text that a client was made with for as long as the client lives (its `AIOKafkaClient`), and has
    a callback only for tokens. It takes these two methods' answers when it authenticates (its `ScramAuthenticator`).
    """

    _secret: SecretStr

    def __new__(cls, secret: SecretStr) -> "LiveText":
        """The text itself is empty, so that nothing keeps or logs an old one."""
        text = super().__new__(cls)
        text._secret = secret
        return text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The password's present bytes."""
        return self._secret.get_secret_value().encode(encoding, errors)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        """The name's present text, with a part replaced."""
        return self._secret.get_secret_value().replace(old, new, count)


class _Connection(AIOKafkaConnection):
    """A connection that ends between two requests before its login does.

    Kafka ends a login after `connections.max.reauth.ms`, or with its token: it cuts the connection at the next request
    (KIP-368). Its own clients log in again before that. aiokafka cannot, and takes the cut for a broken network: it
    logs errors, and waits before it sends again what was in flight.
    """

    _ends = False

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request. The answer to a login says for how long it lasts. Raises KafkaConnectionError.

        For a moment after a reset, aiokafka takes the connection for open, and uvloop's transport raises a RuntimeError
        that aiokafka does not expect: it would end the task that updates the client's metadata, or its group's, and
        the client would wait for that task without an end.
        """
        try:
            answer = super().send(request, expect_response)  # type: ignore[no-untyped-call]
        except KafkaError:  # is a RuntimeError, too
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
        return self._noting_login(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _noting_login(self, answer: Any) -> Any:
        response = await answer
        if lifetime_ms := getattr(response, "session_lifetime_ms", 0):
            self._loop.call_later(lifetime_ms / 1000 * LOGIN_SHARE, _end, weakref.ref(self))
        return response

    def close(self, reason: CloseReason | None = None, exc: Exception | None = None) -> Any:
        """Close at once: nothing that is still sent or received matters to anyone.

        By TLS, uvloop's transport would wait up to 30 seconds for the broker to close, too, and it does not see that
        behind an answer that nobody reads any longer.
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
        """Close as soon as no request waits for its answer."""
        self._ends = True
        self._close_between_requests()

    def _close_between_requests(self) -> None:
        if self._ends and not self._requests:
            self.close(reason=CloseReason.IDLE_DROP)


def _end(connection: "weakref.ref[_Connection]") -> None:
    if living := connection():
        living.end()


# There is no option for the class of the connections.
conn.AIOKafkaConnection = _Connection  # type: ignore[misc]


def enable_rebootstrap(kafka: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> None:
    """Let a long-lived client return to its bootstrap list when none of the brokers that it knows answers.

    Kafka's own clients do this (KIP-899). aiokafka asks only the brokers of the last metadata, which leaves out those
    that were down (aio-libs/aiokafka#456, #459): a client that has refreshed while one broker was up alone never
    finds the others once that one dies. The client may have started already.
    """
    client = kafka.client if isinstance(kafka, AIOKafkaProducer) else kafka._client
    cluster: Any = client.cluster
    note_failure = cluster.failed_update

    def failed_update(error: Exception | None) -> None:
        note_failure(error)
        nodes = [(f"bootstrap-{number}", host, port) for number, (host, port, _) in enumerate(client.hosts)]
        # A client offers no way to forget brokers. Partitions keep their leaders until the next metadata.
        cluster._brokers = {node: BrokerMetadata(node, host, port, None) for node, host, port in nodes}

    cluster.failed_update = failed_update  # called when no known broker has answered


async def forbidden_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[str]:
    """Those of the topics that Kafka does not let this process see, which a list of all topics leaves out.

    The client's own question about single topics would create them where a broker does so by itself.
    """
    answer = await admin._send_request(MetadataRequest(list(names), allow_auto_topic_creation=False))
    found = [(topic["topic"], topic["error_code"]) for topic in answer.to_object()["topics"]]
    return [name for name, code in found if code == TopicAuthorizationFailedError.errno]


def leaderless(consumer: AIOKafkaConsumer) -> Collection[TopicPartition]:
    """The assigned partitions that have no leader: to ask the consumer for their offsets would wait for one."""
    cluster = consumer._client.cluster
    return [p for p in consumer.assignment() if cluster.leader_for_partition(p) in (None, -1)]


def client_of(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    """The client that sends a consumer's requests."""
    return consumer._client


def assignment_of(consumer: AIOKafkaConsumer) -> object:
    """What a consumer keeps of its partitions: a new object where it assigns them again, though they are the same."""
    return consumer._subscription.subscription.assignment


def known_position(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset that the consumer reads next, where it knows it: `consumer.position` would wait until it does."""
    state = consumer._subscription.subscription.assignment.state_value(partition)
    if state is None or not state.has_valid_position:
        return None
    position: int = state.position
    return position


def has_broken_down(consumer: AIOKafkaConsumer) -> bool:
    """Whether one of the consumer's own tasks has ended, by an error that aiokafka did not expect.

    From then on every poll raises that error, or returns nothing, whatever it asks for: only a new client helps.
    """
    coordinator: Any = consumer._coordinator
    fetcher: Any = consumer._fetcher
    in_group = isinstance(coordinator, GroupCoordinator)
    coordination = coordinator._coordination_task if in_group else coordinator._reset_committed_task
    return any(task.done() for task in (coordination, fetcher._fetch_task))


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer join its group again after Kafka did not allow it the group.

    aiokafka's heartbeat ends at that error, and is begun again only by a rebalance.
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
    """A subscriber that takes its batches by `poll`, and hands them to `handle` as they are.

    FastStream's own batch is one `getmany`, which stops at the first partition whose records cannot be decoded and
    returns all of one partition before anything of the next. Its own parser costs three times the whole of ours, and
    what takes its place needs a consumer in each message. There is no option for either.
    """
    subscriber: Subscriber = broker.subscriber(*topics, batch=True, parser=_parse, decoder=_decode, **options)
    subscriber(handle)
    subscriber.get_msg = poll  # type: ignore[assignment, method-assign]
    return subscriber


async def _parse(raw: Records) -> KafkaMessage:
    return KafkaMessage(raw_message=tuple(raw), body=b"", consumer=FAKE_CONSUMER)


async def _decode(message: KafkaMessage) -> Any:
    return message.raw_message
