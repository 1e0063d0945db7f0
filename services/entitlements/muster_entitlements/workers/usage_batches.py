"""Counts or parks batches of reported use, which are read from the topic or were deferred."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from aiokafka import TopicPartition

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.domain.row_results import rule_of
from muster_entitlements.domain.usage import LARGEST_RECORD, LONGEST_WAIT, Use, read_record, size_of
from muster_entitlements.handlers import parked_usage
from muster_entitlements.handlers.usage import Nearest, count_uses
from muster_entitlements.repository import usage_intake
from muster_entitlements.repository.usage_intake import StoredRecord
from muster_runtime.context import new_context
from muster_runtime.database.locks import Lock
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput, RetryableError
from muster_runtime.messaging.parking import printable
from muster_runtime.messaging.topic_log import Record
from muster_runtime.pacing import Pace
from muster_runtime.service import Runtime

BATCH_RECORDS = 2_000

# How much is kept of the value of a record that is too large.
SHOWN_BYTES = 1024

# How long a batch waits for agencies' locks: most transactions, including those of the other lanes, end sooner.
BATCH_LOCK = Lock(patience_seconds=0.5)

_log = structlog.get_logger(__name__)


class ParkedFull(RetryableError):
    """The limit of parked records is reached. Until an operator discards some, the lane waits."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records; and, by place, the uses that were read from them, or why a record is invalid.

    `after` is the offset at which each partition continues.
    """

    records: Sequence[Record | StoredRecord]
    after: Mapping[TopicPartition, int] = field(default_factory=dict)
    uses: dict[int, Use] = field(default_factory=dict)
    parked: dict[int, InvalidInput] = field(default_factory=dict)

    @classmethod
    async def read(
        cls, records: Sequence[Record | StoredRecord], after: Mapping[TopicPartition, int] | None = None
    ) -> "Batch":
        """Read records, and let others use the event loop in between."""
        batch, pace = cls(records, after or {}), Pace()
        for place, record in enumerate(records):
            try:
                batch.uses[place] = read_record(record)
            except InvalidInput as refusal:
                batch.parked[place] = refusal.with_traceback(None)  # it would keep the batch in memory
            except Exception as error:  # one record must never stop the others
                batch.parked[place] = InvalidInput("record", "", f"must be readable, and raised {type(error).__name__}")
            await pace.keep()
        return batch

    def arrived(self, now: datetime) -> dict[int, datetime]:
        """When its deferred records arrived, by place; at most LONGEST_WAIT ago."""
        return {
            place: max(record.deferred_at, now - LONGEST_WAIT)
            for place, record in enumerate(self.records)
            if isinstance(record, StoredRecord) and record.deferred_at is not None
        }

    @property
    def agencies(self) -> set[str]:
        """The agencies whose uses it has."""
        return {use.agency_id for use in self.uses.values()}

    def stored(self, place: int) -> StoredRecord:
        """A record as it is parked or deferred."""
        record = self.records[place]
        if isinstance(record, StoredRecord):
            return record
        place_of = FeatureUsed.topic, record.partition, record.offset
        if size_of(record) > LARGEST_RECORD:
            return StoredRecord(*place_of, None, (), (record.value or b"")[:SHOWN_BYTES])
        return StoredRecord(*place_of, record.key, record.headers, record.value)


@asynccontextmanager
async def writing(runtime: Runtime, agencies: set[str], lock: Lock) -> AsyncIterator[UnitOfWork]:
    """A transaction of the intake, under these agencies' locks."""
    context = new_context(runtime.service.name, runtime.clock.now())
    async with runtime.database.write(*sorted(agencies), context=context, lock=lock) as uow:
        yield uow


def reason_of(refusal: InvalidInput) -> str:
    """Why a record is parked: without the value, which may be an address."""
    return printable(rule_of(refusal))


async def count_or_park(uow: UnitOfWork, batch: Batch, uses: Mapping[int, Use]) -> None:
    """Count these uses of a batch; park those that are refused, and the invalid records. Raises ParkedFull."""
    tally = await count_uses(uow, uses, Nearest(), batch.arrived(uow.now))
    refused = {**batch.parked, **tally.refused}
    if refused:
        await require_room(uow)
        reasons = [(batch.stored(place), reason_of(refused[place])) for place in sorted(refused)]
        await usage_intake.add_parked(uow.connection, reasons, uow.now)
        _log.warning("usage_parked", records=len(refused))


async def require_room(uow: UnitOfWork) -> None:
    """Raise ParkedFull if the limit of parked records is reached."""
    if await parked_usage.is_full(uow.connection):
        raise ParkedFull("usage records cannot be parked: the limit of parked records is reached")
