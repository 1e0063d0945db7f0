"""`entitlements.seats-in-use`: how many seats of its pool each agency holds, counted from seat events."""

import asyncio
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from muster_contracts import MalformedRecord, read_headers, topics
from muster_contracts.entitlements import SeatAssigned, SeatReserved, SeatRevoked
from muster_entitlements.repository import pools
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, Database, UnitOfWork
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.topic_log import Record, TopicLog
from muster_runtime.observability import audit
from muster_runtime.projection import Difference, NotPublished, Projection, correction
from muster_runtime.settings import Settings

_NAME = "entitlements.seats-in-use"
_TOPIC = SeatAssigned.topic

# How long the relay may take to publish the events of an agency's last commands.
PATIENCE_SECONDS = 10.0

_ACCOUNTS = """
select
    p.agency_id, p.in_use, p.revoking, p.cap, p.limit_met,
    (
        select count(*)
        from seat
        where seat.agency_id = p.agency_id and seat.state <> 'revoked'
    ) as held,
    coalesce(s.epoch, e.number) as epoch,
    coalesce(s.last_sequence, 0) as sequence
from pool as p
cross join epoch as e
left join stream as s on s.topic = $1 and s.agency_id = p.agency_id
where $2::text is null or p.agency_id = $2
order by p.agency_id
"""

_WAITING = """
select exists (
    select
    from outbox as o
    join unnest($2::text[], $3::integer[], $4::bigint[]) as account (agency_id, epoch, sequence) using (agency_id)
    where o.topic = $1 and (o.epoch, o.first_sequence) <= (account.epoch, account.sequence)
)
"""


@dataclass(frozen=True)
class Account:
    """An agency's pool and seats, and the last position of its stream of seat events, all at one instant."""

    agency_id: str
    in_use: int
    revoking: int
    cap: int
    limit_met: bool
    held: int
    epoch: int
    sequence: int

    def difference(self, told: int | None) -> Difference | None:
        """How the pool's count differs from the topic's; None if it does not."""
        if told is None:
            found = f"{self.in_use} seats"
            lacking = f"the topic lacks events up to {self.epoch}/{self.sequence}, or they cannot be read"
            return Difference(self.agency_id, found, lacking)
        if self.in_use + self.revoking == told == self.held:
            return None
        obstacle = ""
        if told != self.held:
            obstacle = f"{self.held} seats exist; the topic and the seats differ: report this defect to the developers"
        elif told - self.revoking > self.cap:
            obstacle = f"the cap is {self.cap}: resize the pool first"
        elif told < self.revoking:
            obstacle = f"{self.revoking} seats are being revoked: try again when that is done"
        return Difference(self.agency_id, f"{self.in_use + self.revoking} seats; {told} in the topics", obstacle)


class Changes:
    """How each event of a stream changes the number of seats held. Repetitions and events after a hole do not count."""

    def __init__(self) -> None:
        self._epoch = 1
        self._changes = array("b")  # the change at sequence n is at n - 1

    def add(self, epoch: int, sequence: int, change: int) -> None:
        """Take the next event; a repeated event, or one after a hole, is skipped."""
        if epoch > self._epoch and sequence <= len(self._changes) + 1:
            del self._changes[sequence - 1 :]  # the producer was restored: its earlier events from here on are void
            self._epoch = epoch
        if epoch == self._epoch and sequence == len(self._changes) + 1:
            self._changes.append(change)

    def held(self, epoch: int, sequence: int) -> int | None:
        """The seats held once the producer assigned this position; None if events up to it are missing."""
        if epoch < self._epoch or sequence > len(self._changes):
            return None
        return sum(self._changes[:sequence])


class SeatsInUse(Projection):
    """The pools' counts, compared with a count of the events.

    Commands may continue meanwhile without causing false differences. One statement reads a pool, its seats, and the
    last position of their stream, and the topic is counted up to exactly that position. The topic has reached it once
    the outbox has no event up to it, because a row is deleted when Kafka has acknowledged it.
    """

    def __init__(self, database: Database, log: TopicLog) -> None:
        super().__init__(log)
        self._database = database
        self._streams: defaultdict[str, Changes] = defaultdict(Changes)
        self._reserved: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database: Database) -> AsyncIterator[Projection]:
        """Open the topic."""
        async with TopicLog.open(KafkaConnection(settings), settings.topic_prefix, [_TOPIC]) as log:
            yield cls(database, log)

    async def replay(self) -> None:
        """Count the events of the topic."""
        async for records in self._log.batches():
            for record in records:
                self.records += 1
                self._count(record)

    async def compare(self) -> Sequence[Difference]:
        """The agencies whose pool's count differs from the topic's."""
        async with self._database.read(EVERY_AGENCY) as connection:
            return [difference for *_, difference in await self._differences(connection)]

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Correct each agency that differs in its own transaction. Its lock keeps commands from changing anything."""
        differences: list[Difference] = []
        context = correction(self._database.clock.now())
        for suspect in await self.compare():
            async with self._database.write(suspect.key, context=context) as uow:
                for account, told, difference in await self._differences(uow.connection, suspect.key):
                    differences.append(difference)
                    if told is not None and not difference.obstacle:
                        _correct(uow, account, told, reason)
        return differences

    def _count(self, record: Record) -> None:
        try:
            envelope = read_headers(record.headers)
            change = self._change(envelope.type, record.value or b"")
        except (MalformedRecord, ValidationError, LookupError):
            self._malformed += 1  # the hole that it leaves in its stream is noticed
            return
        self._streams[envelope.agency_id].add(envelope.epoch, envelope.sequence, change)

    def _change(self, event_type: str, value: bytes) -> int:
        """A seat counts from its reservation, or its assignment if it was not reserved, until it is revoked."""
        if event_type == SeatReserved.event_type:
            self._reserved.add(SeatReserved.model_validate_json(value).seat_id)
            return 1
        if event_type == SeatAssigned.event_type:
            return 0 if SeatAssigned.model_validate_json(value).seat_id in self._reserved else 1
        if event_type == SeatRevoked.event_type:
            return -1
        if event_type not in topics()[_TOPIC].events:
            raise LookupError(event_type)
        return 0

    async def _differences(
        self, connection: Connection, agency_id: str | None = None
    ) -> list[tuple[Account, int | None, Difference]]:
        """The accounts that differ, with the topic's count of seats. Raises NotPublished."""
        accounts = [Account(**row) for row in await connection.fetch(_ACCOUNTS, _TOPIC, agency_id)]
        await self._published(connection, accounts)
        await self.replay()
        found = []
        for account in accounts:
            told = self._streams[account.agency_id].held(account.epoch, account.sequence)
            if difference := account.difference(told):
                found.append((account, told, difference))
        return found

    async def _published(self, connection: Connection, accounts: Sequence[Account]) -> None:
        """Wait until the events behind the accounts have left the outbox. Raises NotPublished."""
        arguments = (
            _TOPIC,
            [account.agency_id for account in accounts],
            [account.epoch for account in accounts],
            [account.sequence for account in accounts],
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await connection.fetchval(_WAITING, *arguments):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotPublished(
                f"events of seats still wait in entitlements' outbox after {PATIENCE_SECONDS:g} s: try again; if they "
                "stay, follow the runbook outbox-stuck.md"
            ) from None


def _correct(uow: UnitOfWork, account: Account, told: int, reason: str) -> None:
    # As after a resize, `limit_met` stays true only if no seat is free.
    in_use = told - account.revoking
    limit_met = account.limit_met and in_use == account.cap
    uow.writes.add(pools.save_seats_in_use(account.agency_id, in_use - account.in_use, limit_met=limit_met))
    audit.record(
        uow,
        command="RebuildProjection",
        agency_id=account.agency_id,
        subject=_NAME,
        before={"in_use": account.in_use},
        after={"in_use": in_use},
        reason=reason,
    )
