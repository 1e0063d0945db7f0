"""The relay: publishes the outbox's runs to Kafka in ID order, and deletes them once acknowledged.

If it dies between the acknowledgment and the delete, or if two relays run, events repeat on the topic with the same IDs
and sequences. None is lost, and none overtakes another of its stream. One lane publishes to the topics of facts,
another to the compacted topics; neither waits for the other, but if one finds that the database has lost commits, both
stop. Only the lane of the compacted topics is fenced.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from muster_contracts import topics as contracts
from muster_runtime.canceling import is_canceled, run_together
from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.flight import Run
from muster_runtime.messaging.kafka_topics import TopicFaults
from muster_runtime.messaging.lane import Lane
from muster_runtime.messaging.lease import RELAY, RELAY_COMPACTED, Lease
from muster_runtime.messaging.producers import Producer
from muster_runtime.messaging.trust import Trust
from muster_runtime.observability.telemetry import RELAYED

# Deleted payloads pile up in the table's TOAST until a vacuum, so the relay runs one after this many events.
VACUUM_AFTER_EVENTS = 200_000

_log = structlog.get_logger(__name__)


def transactional_id(topic_prefix: str, service: str) -> str:
    """The transactional ID that a service's relays share, so that each new leader fences all earlier ones."""
    return f"{topic_prefix}{service}-relay"


class Relay:
    """Drains one service's outbox while it holds the leases of its lanes. `wakeups` makes a wakeup for each lane.

    `topics` maps each topic that the service writes to the number of partitions it must have. `faults` returns what is
    wrong with them now: nothing is sent to those that cannot take events. `backlog` notes what is published.
    `on_restored` is called each time that the database is found to have lost commits.
    """

    def __init__(
        self,
        database: Database,
        wakeups: Callable[[], Wakeup],
        *,
        service: str,
        holder: str,
        kafka: KafkaConnection,
        topics: Mapping[str, int],
        backlog: Backlog,
        on_restored: Callable[[], Awaitable[None]],
        topic_prefix: str = "",
        faults: Callable[[], TopicFaults] = TopicFaults,
    ) -> None:
        self._database = database
        self._service = service
        self._backlog = backlog
        self._on_restored = on_restored
        self._to_vacuum = 0
        self._vacuum_due = asyncio.Event()
        self.relayed = 0
        compacted = [topic for topic in topics if contracts()[topic].compacted]
        partitions = {topic_prefix + topic: number for topic, number in topics.items()}
        facts = [topic for topic in topics if topic not in compacted]

        def lane(duty: str, names: Sequence[str], fence: str | None) -> Lane:
            return Lane(
                database,
                wakeups(),
                Lease(database, duty, holder),
                names,
                trust=Trust(database, kafka, topic_prefix, list(topics), faults, lane=duty, own=names),
                topic_prefix=topic_prefix,
                make_producer=lambda: Producer(kafka, f"{service}-relay", partitions, fence),
                on_deleted=self._on_deleted,
                on_restored=self._distrust,
                faults=faults,
            )

        self._lanes = [lane(RELAY, facts, None)] if facts else []
        if compacted:
            self._lanes.append(lane(RELAY_COMPACTED, compacted, transactional_id(topic_prefix, service)))

    @property
    def held(self) -> str | None:
        """Why something cannot be published; None if everything can."""
        return "; ".join(dict.fromkeys(reason for lane in self._lanes for reason in lane.held)) or None

    async def run(self) -> None:
        """Relay until canceled."""
        await run_together(*(lane.run() for lane in self._lanes), self._vacuum())

    async def _distrust(self) -> None:
        """Stop all lanes until they have compared their topics again: one has found that commits are lost."""
        for lane in self._lanes:
            lane.distrust()
        await self._on_restored()

    def _on_deleted(self, runs: Sequence[Run]) -> None:
        for run in runs:
            RELAYED.labels(self._service, run["topic"]).inc(run["events"])
        self._backlog.shrink(len(runs))
        events = sum(run["events"] for run in runs)
        self.relayed += events
        self._to_vacuum += events
        if self._to_vacuum >= VACUUM_AFTER_EVENTS:
            self._vacuum_due.set()

    async def _vacuum(self) -> None:
        """Vacuum the outbox after every VACUUM_AFTER_EVENTS deleted events, without pausing the lanes."""
        while not is_canceled():
            await self._vacuum_due.wait()
            self._vacuum_due.clear()
            self._to_vacuum = 0
            try:
                async with self._database.connection() as connection:
                    await connection.execute("vacuum outbox")
            except RETRYABLE as error:
                _log.warning("outbox_not_vacuumed", error=repr(error))
