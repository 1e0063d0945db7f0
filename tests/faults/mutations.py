"""Removes each of the runtime's protections: the oracle must see the harm, or it proves nothing."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from muster_contracts import Position
from muster_runtime.context import Context
from muster_runtime.database.locks import LOCK, Lock
from muster_runtime.database.transactions import Database, UnitOfWork
from muster_runtime.messaging import positions, streams_transaction
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.flight import Parts, Run
from muster_runtime.messaging.lane import Lane
from muster_runtime.messaging.offsets import Partition
from muster_runtime.messaging.plan import Plan
from muster_runtime.messaging.positions import StreamKey
from muster_runtime.messaging.producers import Producer
from muster_runtime.messaging.record_reader import Item
from muster_runtime.messaging.streams_transaction import StreamsTransaction

# mypy sees a plain assignment to a method as an error, which it mostly is.
_replace = setattr


def lock_not_first() -> None:
    """A transaction admits itself to its agencies, and takes their lock only after it has read and written."""

    @asynccontextmanager
    async def write(self: Database, *agencies: str, context: Context, lock: Lock = LOCK) -> AsyncIterator[UnitOfWork]:
        async with self.pool.acquire() as connection, connection.transaction():
            found = await connection.fetch(
                lock.statement, [], self.clock.now(), not self.clock.virtual, *lock.arguments
            )
            await connection.execute("select set_config('muster.locked', $1, true)", ",".join(agencies))
            await connection.execute("select set_config('muster.agency', $1, true)", agencies[0])
            uow = UnitOfWork(connection, frozenset(agencies), self.clock.now(), context, found)
            yield uow
            await connection.execute("select lock_agencies($1)", list(agencies))
            await uow.flush()

    _replace(Database, "write", write)


def deduplication_off() -> None:
    """The consumer takes every record for a new one."""

    def plan_all(_service: str, _topic: str, items: Sequence[Item], last: Position) -> Plan:
        return Plan(items[-1].position or last, items, [])

    _replace(streams_transaction, "make_plan", plan_all)


def delete_before_acknowledgment() -> None:
    """The relay deletes runs from the outbox, and then sends them."""
    send = Lane._send

    async def delete_and_send(self: Lane, producer: Producer, parts: Parts) -> Sequence[Run]:
        await self._delete([run for part in parts.values() for run in part.runs])
        return await send(self, producer, parts)

    _replace(Lane, "_send", delete_and_send)


def offsets_kept_first() -> None:
    """The consumer stores the offsets at which it continues, and then applies the records."""
    on_batch = Consumer._on_batch

    async def keep_and_apply(self: Consumer, raw: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        await self._kept.keep({TopicPartition(r.topic, r.partition): (0, r.offset + 1) for r in raw})
        await on_batch(self, raw)

    _replace(Consumer, "_on_batch", keep_and_apply)


def last_sequence_apart() -> None:
    """The last sequences are stored in a separate transaction, after that of the effects has committed."""
    store = positions.store
    apply = StreamsTransaction.apply
    advanced: dict[StreamKey, Position] = {}

    def store_later(_uow: UnitOfWork, _group: str, latest: Mapping[StreamKey, Position]) -> None:
        advanced.update(latest)

    async def apply_then_store(
        self: StreamsTransaction,
        streams: Mapping[StreamKey, Sequence[Item]],
        known: Mapping[Partition, int],
        patience_seconds: float | None = None,
    ) -> None:
        advanced.clear()
        await apply(self, streams, known, patience_seconds)
        if advanced:
            agencies = {agency_id for _, agency_id in advanced}
            async with self._database.write(*agencies, context=self._subscriptions.context) as uow:
                store(uow, self._subscriptions.group, advanced)

    _replace(positions, "store", store_later)
    _replace(StreamsTransaction, "apply", apply_then_store)


MUTATIONS: dict[str, Callable[[], Any]] = {
    mutation.__name__: mutation
    for mutation in (
        lock_not_first,
        deduplication_off,
        delete_before_acknowledgment,
        offsets_kept_first,
        last_sequence_apart,
    )
}
