"""Identifies the log that is read, with aiokafka: the IDs of the cluster and the topic.

aiokafka does not ask for a topic's ID, which Kafka returns since version 10 of its Metadata response (KIP-516). So
version 12 of that request is defined here. confluent-kafka has it in `AdminClient.describe_topics`.

muster-entitlements-client has a copy of this, because the examples need no package of Muster's except the contracts.
"""

import asyncio
import uuid
from io import BytesIO
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields
from connection import BOOTSTRAP, for_aiokafka

# How long a group may be without a coordinator.
COORDINATOR_SECONDS = 30


class _Uuid(AbstractType[uuid.UUID]):
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


_TEXT = CompactString("utf-8")
_NUMBERS = CompactArray(Int32)


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("_", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("id", Int32),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", _NUMBERS),
                        ("in_sync", _NUMBERS),
                        ("offline", _NUMBERS),
                        ("_", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("_", TaggedFields),
            ),
        ),
        ("_", TaggedFields),
    )


class _MetadataStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), ("_", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_authorized_operations", Boolean),
        ("_", TaggedFields),
    )


class _Metadata(Request[_MetadataStruct]):
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        return request_struct_class([(uuid.UUID(int=0), self._topic, {})], False, False, {})


async def log_ids(topic: str) -> tuple[str, str]:
    """The IDs of the cluster and the topic. Raises KafkaError if Kafka cannot be reached or has no such topic."""
    client = AIOKafkaClient(**for_aiokafka())
    try:
        await client.bootstrap()
        answer: Any = await client.send(client.get_random_node(), _Metadata(topic))
    finally:
        await client.close()
    (found,) = answer.to_object()["topics"]
    if found["error_code"]:
        raise LookupError(f"Kafka at {BOOTSTRAP} has no topic {topic} that this subscriber may read")
    return answer.cluster_id, str(found["topic_id"])


async def members(group: str) -> int:
    """How many members a consumer group has now. Raises TimeoutError if no broker can say."""
    admin = AIOKafkaAdminClient(**for_aiokafka())
    await admin.start()
    try:
        async with asyncio.timeout(COORDINATOR_SECONDS):
            while (found := await _members(admin, group)) is None:
                await asyncio.sleep(0.2)
        return found
    finally:
        await admin.close()


async def _members(admin: AIOKafkaAdminClient, group: str) -> int | None:
    """None while the group has no coordinator, as on a cluster that never had a group."""
    try:
        (answer,) = await admin.describe_consumer_groups([group])
    except GroupCoordinatorNotAvailableError:
        return None
    ((error, _, _, _, _, joined, *_),) = answer.groups
    return None if error else len(joined)
