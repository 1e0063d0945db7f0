"""Turns errors of the Postgres and Kafka clients into failures of a command."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from aiokafka.errors import KafkaError
from asyncpg.exceptions import TargetServerAttributeNotMatched

from muster_operator.failures import BadInput, Unreachable
from muster_runtime.messaging.connection import KafkaConnection


@asynccontextmanager
async def clients_of_servers(kafka: KafkaConnection) -> AsyncIterator[None]:
    """A block that uses Postgres and Kafka. Raises Unreachable, and BadInput if Postgres is a standby."""
    async with client_of_kafka(kafka), client_of_postgres():
        yield


@asynccontextmanager
async def client_of_kafka(kafka: KafkaConnection) -> AsyncIterator[None]:
    """A block that uses only Kafka. Raises Unreachable."""
    try:
        yield
    except KafkaError as error:
        raise Unreachable(await kafka.failure(error)) from None


@asynccontextmanager
async def client_of_postgres() -> AsyncIterator[None]:
    """A block that uses only Postgres. Raises Unreachable, and BadInput for a standby."""
    try:
        with _first_of_several():
            yield
    except TargetServerAttributeNotMatched:
        raise BadInput("Postgres is a standby, which may lag behind: name its primary") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unreachable(f"Postgres cannot be queried: {error or type(error).__name__}") from None


@contextmanager
def _first_of_several() -> Iterator[None]:
    """A block whose tasks may fail together. Raises their first error, without the group."""
    try:
        yield
    except ExceptionGroup as group:
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None
