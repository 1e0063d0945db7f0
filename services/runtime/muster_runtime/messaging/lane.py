"""A lane of the relay: one producer that publishes some topics' runs from the outbox to Kafka, in ID order."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

import structlog
from aiokafka.errors import KafkaError

from muster_runtime.canceling import is_canceled
from muster_runtime.database import repeatable
from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.errors import describe
from muster_runtime.messaging.connection import forbidden
from muster_runtime.messaging.flight import Flight, Parts, Run
from muster_runtime.messaging.kafka_topics import TopicFaults, TopicRepartitioned
from muster_runtime.messaging.lease import RENEW_SECONDS, Lease
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.producers import Producer
from muster_runtime.messaging.restore_guard import DatabaseRestored
from muster_runtime.messaging.trust import Trust
from muster_runtime.observability import tracing

# The limits of one read: runs, and events in them.
READ_RUNS = 500
READ_EVENTS = 10_000

# How many runs of the outbox to search for those of streams that have not filled a read.
LOOK_RUNS = 10_000

# How long to wait after a failure, and while only an operator can help.
RETRY_SECONDS = 0.5
OPERATOR_SECONDS = 5.0

# The errors that only an operator can fix.
AN_OPERATORS = (DatabaseRestored, TopicRepartitioned)

# Never `id > last`: a run that commits late has a low id, and is simply read later.
_READ = """
select
    id, topic, agency_id, epoch, first_sequence, type, time, correlation_id, causation_id, traceparent,
    keys, payloads, events
from outbox
where id in (
    select id
    from (
        select id, sum(events) over (order by id) - events as before
        from (
            select id, events
            from (
                select id, topic, agency_id, events
                from outbox
                where
                    topic = any($1::text[])
                    and id not in (select unnest($2::bigint[]))
                    and (topic, agency_id) not in (select * from unnest($3::text[], $4::text[]))
                order by id
                limit $7
            ) as near
            where (topic, agency_id) not in (select * from unnest($8::text[], $9::text[]))
            order by id
            limit $5
        ) as head
    ) as counted
    where before < $6
)
order by id
"""

_log = structlog.get_logger(__name__)


class Lane:
    """Relays some topics while it holds its lease. `held` lists what it cannot publish, and why.

    `make_producer` creates the client that sends. `on_deleted` is called with the runs that were deleted from the
    outbox; `on_restored`, if the database has lost commits. `faults` returns what is wrong with the topics now.
    """

    def __init__(
        self,
        database: Database,
        wakeup: Wakeup,
        lease: Lease,
        topics: Sequence[str],
        *,
        trust: Trust,
        topic_prefix: str,
        make_producer: Callable[[], Producer],
        on_deleted: Callable[[Sequence[Run]], None],
        on_restored: Callable[[], Awaitable[None]],
        faults: Callable[[], TopicFaults],
    ) -> None:
        self._database = database
        self._wakeup = wakeup
        self._lease = lease
        self._topics = topics
        self._trust = trust
        self._topic_prefix = topic_prefix
        self._make_producer = make_producer
        self._on_deleted = on_deleted
        self._on_restored = on_restored
        self._faults = faults
        self._producer: Producer | None = None
        self._flight = Flight(topic_prefix, wakeup.wake)
        self._failure: str | None = None
        self._served: set[StreamKey] = set()  # streams that filled a read since the last read that had room for all

    @property
    def held(self) -> Sequence[str]:
        """Human-readable reasons why something cannot be published."""
        failures = [] if self._failure is None else [self._failure]
        return [*failures, *self._held_topics.values(), *self._flight.reasons]

    @property
    def _held_topics(self) -> dict[str, str]:
        """The topics that cannot take events now, and why. Their events wait in the outbox; the others do not."""
        why = self._faults().unpublishable
        return {topic: why[name] for topic in self._topics if (name := self._topic_prefix + topic) in why}

    async def run(self) -> None:
        """Relay until canceled. After a failure, open a new producer and read the outbox again."""
        try:
            while not is_canceled():
                try:
                    if not await self._lease.take():
                        await self._close_producer()  # the new leader has fenced it, or resends what it had in flight
                        await self._rest()
                    else:
                        async with self._lease.renewed():
                            progress = await self._drain()
                        if not progress:
                            await self._rest()
                    self._failure = None
                except (KafkaError, *RETRYABLE) as error:
                    self._failure = forbidden(error) or describe(error)
                    _log.warning("relay_failed", error=repr(error))
                    await self._close_producer()
                    await self._lease.release()
                    if not is_canceled():
                        await asyncio.sleep(OPERATOR_SECONDS if isinstance(error, AN_OPERATORS) else RETRY_SECONDS)
        finally:
            try:
                await self._close_producer()
            finally:
                await self._lease.release()

    async def _drain(self) -> bool:
        """Relay until nothing can be sent or the lease is lost. Reading, encoding, and deleting overlap with sending.

        It sends nothing that was read before the producer started, because that may include runs stopped by a fence.
        """
        producer = self._producer or await self._open_producer()
        acknowledged = self._flight.collect(producer)
        if progress := bool(acknowledged):
            await self._delete(acknowledged)
        batch = await self._flight.encode(producer, await self._read(()))
        await self._trust_server()
        deleting: asyncio.Task[None] | None = None
        try:
            while batch and not is_canceled():
                # Before the next read: runs that must wait are then not counted as in flight, and not read again too
                # early.
                parts = self._flight.sendable(producer, batch)
                in_flight = [run["id"] for part in parts.values() for run in part.runs]
                deleted = [run["id"] for run in acknowledged]  # or about to be deleted
                sending = asyncio.ensure_future(self._send(producer, parts))
                try:
                    batch = await self._flight.encode(producer, await self._read(in_flight + deleted))
                except asyncio.CancelledError:
                    sending.cancel()  # what was in flight is sent again
                    raise
                finally:
                    acknowledged = await sending
                    if deleting is not None:
                        await deleting
                    deleting = asyncio.ensure_future(self._delete(acknowledged)) if acknowledged else None
                progress = progress or bool(acknowledged)
                if not await self._lease.take():
                    break
                await self._trust_server()
        finally:
            if deleting is not None:
                await deleting
        return progress

    async def _read(self, without: Sequence[int]) -> list[Run]:
        """The first runs, except these IDs and those of waiting streams and topics.

        A stream that fills a read waits until all others have been read: its burst delays them by only a read or two.
        """
        runs = await self._first(without, self._served)
        if not runs and self._served:
            self._served = set()
            runs = await self._first(without, ())
        if len(runs) == READ_RUNS or sum(run["events"] for run in runs) >= READ_EVENTS:
            self._served |= {(run["topic"], run["agency_id"]) for run in runs}
        else:
            self._served = set()
        return runs

    async def _first(self, without: Sequence[int], served: Collection[StreamKey]) -> list[Run]:
        waiting = self._flight.waiting
        held = self._held_topics
        return await repeatable.fetch(
            self._database,
            _READ,
            [topic for topic in self._topics if topic not in held],
            without,
            [topic for topic, _ in waiting],
            [agency_id for _, agency_id in waiting],
            READ_RUNS,
            READ_EVENTS,
            LOOK_RUNS,
            [topic for topic, _ in served],
            [agency_id for _, agency_id in served],
        )

    async def _send(self, producer: Producer, parts: Parts) -> Sequence[Run]:
        """Send the parts; returns everything acknowledged by now, which may include late parts."""
        if parts:
            with tracing.publication(run for part in parts.values() for run in part.runs):
                await self._flight.send(producer, parts)
        return self._flight.collect(producer)

    async def _delete(self, runs: Sequence[Run]) -> None:
        ids = [run["id"] for run in runs]
        await repeatable.fetch(self._database, "delete from outbox where id = any($1::bigint[])", ids)
        self._on_deleted(runs)

    async def _rest(self) -> None:
        """Wait until there is something to send, or until it is time to take or renew the lease."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_SECONDS):
                await self._wakeup.wait()

    async def _trust_server(self) -> None:
        """Check for lost commits before sending anything read from a different or restarted server.

        A partition without a leader is checked once it has one.
        """
        if self._flight.regained:
            self._flight.regained = False
            self._trust.forget()
        try:
            self._flight.hold_up(await self._trust.check())
        except DatabaseRestored as error:
            self._failure = describe(error)
            await self._on_restored()
            raise

    def distrust(self) -> None:
        """Check for lost commits before sending anything more: another lane has found some."""
        self._trust.forget()

    async def _open_producer(self) -> Producer:
        self._producer = producer = self._make_producer()  # assigned first, so that it is closed if its start fails
        await producer.start()
        return producer

    async def _close_producer(self) -> None:
        """Close the producer. It cannot recover from an out-of-order error."""
        await self._flight.cancel()
        self._trust.forget()  # as the flight forgets which partitions are not compared yet
        if self._producer is not None:
            await self._producer.close()
            self._producer = None  # only now, so that a canceled close is repeated
