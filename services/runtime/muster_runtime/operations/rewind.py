"""Makes a service read its topics from the beginning, whatever read positions its database has."""

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from pydantic import BaseModel

from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.errors import Conflict, RetryableError
from muster_runtime.messaging import offsets
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.observability import audit
from muster_runtime.service import Service

# How long the commit to Kafka may take.
PATIENCE_SECONDS = 30


class Rewound(BaseModel):
    """The topics that the service will read from the beginning. It skips what it has applied."""

    topics: list[str]


async def rewind(uow: UnitOfWork, service: Service, kafka: KafkaConnection, group: str, reason: str) -> Rewound:
    """Delete the read positions of a service's consumer group, so that it starts from the beginning.

    Raises Conflict if a process still consumes as a member of the group, and RetryableError if Kafka cannot be reached.
    """
    topics = sorted({cls.topic for cls in service.subscriptions})
    audit.record(uow, command="RewindConsumer", agency_id=EVERY_AGENCY, after={"topics": topics}, reason=reason)
    await offsets.forget(uow.connection, group)
    await uow.flush()  # before Kafka's offsets change, which no rollback undoes
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _commit_beginnings(kafka, group, [service.settings.topic_prefix + topic for topic in topics])
    except CommitFailedError:
        raise Conflict(
            f"a process of {service.name} is still consuming: stop every process except one with the role "
            "operations. A killed process counts for up to ten more seconds"
        ) from None
    except KafkaError as error:
        raise RetryableError(await kafka.failure(error)) from error
    return Rewound(topics=topics)


async def _commit_beginnings(kafka: KafkaConnection, group: str, names: list[str]) -> None:
    """Set Kafka's offsets, for tools. Kafka accepts them from a nonmember only while the group has no members."""
    async with AIOKafkaConsumer(*names, **kafka.options(), enable_auto_commit=False) as reader:
        beginnings = await reader.beginning_offsets(reader.assignment())
    async with AIOKafkaConsumer(**kafka.options(), group_id=group, enable_auto_commit=False) as outsider:
        outsider.assign(list(beginnings))
        await outsider.commit({partition: OffsetAndMetadata(offset, "") for partition, offset in beginnings.items()})
