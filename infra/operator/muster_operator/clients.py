"""Turns errors of the Postgres and Kafka clients into failures of a command."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from aiokafka.errors import BrokerResponseError, KafkaError
from asyncpg.exceptions import TargetServerAttributeNotMatched

from muster_operator.failures import BadInput, Refused, TimedOut, Unreachable
from muster_runtime.database.sessions import REFUSED
from muster_runtime.messaging.connection import KafkaConnection, unreachable


@asynccontextmanager
async def clients_of_servers(kafka: KafkaConnection) -> AsyncIterator[None]:
    """A block that uses Postgres and Kafka. Raises what the two blocks below raise."""
    async with client_of_kafka(kafka), client_of_postgres():
        yield


@asynccontextmanager
async def client_of_kafka(kafka: KafkaConnection) -> AsyncIterator[None]:
    """A block that uses only Kafka. Raises Refused, Unreachable, and TimedOut."""
    try:
        yield
    except KafkaError as error:
        if refusal := await kafka.refusal(error):
            raise Refused(refusal) from None
        if isinstance(error, BrokerResponseError) and not error.retriable:
            raise Refused(f"Kafka refused: {error}") from None
        raise Unreachable(unreachable(error)) from None
    except TimeoutError:
        raise TimedOut("Kafka did not answer in time") from None


@asynccontextmanager
async def client_of_postgres() -> AsyncIterator[None]:
    """A block that uses only Postgres. Raises Refused, Unreachable, and BadInput for a standby."""
    try:
        with _first_of_several():
            yield
    except TargetServerAttributeNotMatched:
        raise BadInput("Postgres is a standby, which may lag behind: name its primary") from None
    except (*REFUSED, asyncpg.InsufficientPrivilegeError) as error:
        raise Refused(f"Postgres refused: {error}") from None
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
