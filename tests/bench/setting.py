"""A service's schema and topics on real servers, for the duration of one benchmark."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from muster_contracts import topics
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import Access
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.relay import Relay
from muster_runtime.scheduling import hold
from tests.support import servers
from tests.support.databases import Databases

SEAT_TOPIC = "muster.entitlements.seat"
AGENCIES = [f"AG{number:02}" for number in range(44)]


@dataclass(frozen=True)
class Setting:
    """The entitlements service's schema as its worker role sees it, and this benchmark's own topics."""

    access: Access
    database: Database
    kafka: KafkaConnection
    topic_prefix: str

    def relay(self, wakeups: Callable[[], Wakeup], topic: str = SEAT_TOPIC) -> Relay:
        """The relay of the schema's outbox, which holds events of one topic."""
        return Relay(
            self.database,
            wakeups,
            service="entitlements",
            holder="bench",
            kafka=self.kafka,
            topics={topic: topics()[topic].partitions},
            topic_prefix=self.topic_prefix,
            backlog=Backlog(1_000_000),
            on_restored=lambda: hold.begin_for_lost_commits(self.database, SystemClock(), "entitlements"),
        )


@dataclass(frozen=True)
class Addresses:
    """The addresses of Postgres, as a superuser, and Kafka."""

    postgres_dsn: str
    kafka: KafkaConnection


def plain() -> Addresses:
    """The servers that most benchmarks share."""
    addresses = servers.start(durable=True)
    return Addresses(addresses.postgres_dsn, kafka_at(addresses.kafka_bootstrap))


@asynccontextmanager
async def setting(addresses: Addresses | None = None) -> AsyncIterator[Setting]:
    """Create them, by default on the servers that most benchmarks share, and remove them at the end."""
    addresses = addresses or plain()
    prefix = f"bench-{secrets.token_hex(4)}."
    databases = Databases(addresses.postgres_dsn)
    access = await databases.make("entitlements")
    database = await Database(access.worker_dsn, "entitlements", SystemClock()).open()
    await create_topics(addresses.kafka, prefix, [topics()[SEAT_TOPIC]])
    try:
        yield Setting(access, database, addresses.kafka, prefix)
    finally:
        await database.close()
        await delete_topics(addresses.kafka, [prefix + SEAT_TOPIC])
        await databases.drop_all()
