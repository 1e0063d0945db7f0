"""Finds the ID of a topic: a recreated topic has a different ID.

aiokafka does not ask for it. Kafka returns it since version 10 of the Metadata response (KIP-516), so version 12 of
that request is defined here. What follows the ID in the response for a topic is not parsed.
"""

import uuid
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields


class _Uuid(AbstractType[uuid.UUID]):
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


_TEXT = CompactString("utf-8")


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
        ("topics", CompactArray(("error_code", Int16), ("name", _TEXT), ("topic_id", _Uuid))),
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


async def find_topic_id(client: AIOKafkaClient, topic: str) -> str:
    """The current ID of a topic. Raises KafkaError."""
    answer: Any = await client.send(client.get_random_node(), _Metadata(topic))
    [(error_code, _, found)] = answer.topics
    if error_code:
        raise for_code(error_code)(topic)
    return str(found)
