"""`entitlements.snapshot`: compares the snapshot topic with the tables, and publishes again what differs.

A step is one transaction that publishes STEP_SEATS seats. A rebuild that was killed continues where it stopped, because
what it has published no longer differs.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from muster_contracts import MalformedRecord, read_headers
from muster_contracts.codec import subject_of
from muster_contracts.entitlements import (
    AgencyAccess,
    FurtherUses,
    GrantedAccess,
    QuotaUse,
    SubjectAccess,
    SubjectAccessErased,
)
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.snapshots import NOTHING
from muster_entitlements.handlers.snapshots import find_access, publish_agency, publish_subjects
from muster_entitlements.publishing.snapshots import further_uses, granted, used
from muster_entitlements.repository import pools, snapshots
from muster_runtime.context import Context
from muster_runtime.database.transactions import EVERY_AGENCY, Connection, Database, UnitOfWork
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.topic_log import Record, TopicLog
from muster_runtime.observability import audit
from muster_runtime.projection import Difference, Projection, correction
from muster_runtime.settings import Settings

_NAME = "entitlements.snapshot"
_TOPIC = AgencyAccess.topic

# The seats that one transaction publishes, and that one statement reads.
STEP_SEATS = 5_000

# How long the relay may take to publish the records of an agency's last commands.
PATIENCE_SECONDS = 10.0

_UNPUBLISHED = (
    f"its records still wait in entitlements' outbox after {PATIENCE_SECONDS:g} s: try again; if they stay, follow "
    "the runbook outbox-stuck.md"
)

# What a command changes between reading the tables and reading the topic differs in one look, but not in this many.
_LOOKS = 3

_Lasting = TypeVar("_Lasting", GrantedAccess, FurtherUses)

# A seat's generation, its state, when its trial began, and the person's grants, used quotas, and further uses.
_Standing = tuple[int, str, datetime | None, tuple[GrantedAccess, ...], tuple[QuotaUse, ...], tuple[FurtherUses, ...]]


@dataclass(frozen=True)
class Suspects:
    """What differs for an agency: its own record, the records of people, and why they cannot be corrected."""

    agency_id: str
    itself: bool
    subject_refs: frozenset[str]
    obstacle: str = ""

    def __bool__(self) -> bool:
        return self.itself or bool(self.subject_refs)

    def __and__(self, other: "Suspects") -> "Suspects":
        both = self.subject_refs & other.subject_refs
        return Suspects(self.agency_id, self.itself and other.itself, both, other.obstacle)

    @property
    def difference(self) -> Difference:
        """The difference to report."""
        found = ["its own record"] * self.itself
        if self.subject_refs:
            people = len(self.subject_refs)
            found.append("the record of 1 person" if people == 1 else f"records of {people:,} people")
        return Difference(self.agency_id, " and ".join(found), self.obstacle)


@dataclass
class Folded:
    """The content of the topic: the latest record of each key in a partition, whichever agency wrote it."""

    agencies: dict[str, AgencyAccess] = field(default_factory=dict)
    seats: defaultdict[str, dict[str, _Standing]] = field(default_factory=lambda: defaultdict(dict))
    revisions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # the highest of each agency
    _standings: dict[_Standing, _Standing] = field(default_factory=dict)  # each stored once: millions are equal
    _partitions: dict[str, int] = field(default_factory=dict)  # of agencies

    def take(self, record: Record) -> None:
        """Take the next record. Raises MalformedRecord, ValidationError, or LookupError for an unknown type."""
        envelope = read_headers(record.headers)
        if envelope.type == AgencyAccess.event_type:
            agency = AgencyAccess.model_validate_json(record.value or b"")
            self.agencies[agency.agency_id] = agency
            self._see(agency.agency_id, agency.revision)
        elif envelope.type == SubjectAccess.event_type:
            access = SubjectAccess.model_validate_json(record.value or b"")
            own = tuple(access.grants), tuple(access.quotas), tuple(access.further_uses)
            standing = (access.generation, str(access.seat), access.trial_began_at, *own)
            self.seats[access.agency_id][access.subject_ref] = self._standings.setdefault(standing, standing)
            self._partitions[access.agency_id] = record.partition
            self._see(access.agency_id, access.revision)
        elif envelope.type == SubjectAccessErased.event_type:
            self._erase(envelope.agency_id, subject_of(record.key), record.partition)
        else:
            raise LookupError(envelope.type)

    def _see(self, agency_id: str, revision: int) -> None:
        self.revisions[agency_id] = max(self.revisions[agency_id], revision)

    def _erase(self, agency_id: str, subject_ref: str, partition: int) -> None:
        """Forget a person, or else other agencies' records under this key in the partition: compaction deletes them."""
        if self.seats[agency_id].pop(subject_ref, None) is None:
            for other, number in self._partitions.items():
                if number == partition:
                    self.seats[other].pop(subject_ref, None)


class Snapshot(Projection):
    """Compares the folded topic with the tables. Commands may continue meanwhile."""

    def __init__(self, database: Database, log: TopicLog) -> None:
        super().__init__(log)
        self._database = database
        self._folded = Folded()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database: Database) -> AsyncIterator[Projection]:
        """Open the topic."""
        async with TopicLog.open(KafkaConnection(settings), settings.topic_prefix, [_TOPIC]) as log:
            yield cls(database, log)

    async def replay(self) -> None:
        """Fold the records of the topic."""
        async for records in self._log.batches():
            for record in records:
                self.records += 1
                try:
                    self._folded.take(record)
                except (MalformedRecord, ValidationError, LookupError):
                    self._malformed += 1

    async def compare(self) -> Sequence[Difference]:
        """The agencies whose records differ from the tables."""
        return [suspects.difference async for suspects in self._suspects()]

    async def swap(self, reason: str) -> Sequence[Difference]:
        """Publish what differs for each agency as soon as it is known, in steps under the agency's lock."""
        found = []
        context = correction(self._database.clock.now())
        async for suspects in self._suspects():
            if not suspects.obstacle:
                await self._publish(suspects, reason, context)
            found.append(suspects.difference)
        return found

    async def _suspects(self) -> AsyncIterator[Suspects]:
        """The agencies that differ. If the records of one stay in the outbox, the others continue."""
        async with self._database.read(EVERY_AGENCY) as connection:
            known = await snapshots.list_pools(connection)
        for agency_id in sorted({*known, *self._folded.agencies, *self._folded.seats}):
            suspects = await self._look(agency_id)
            for _ in range(_LOOKS - 1):
                if suspects:
                    if not await self._is_published(agency_id):
                        suspects = replace(suspects, obstacle=_UNPUBLISHED)
                        break
                    await self.replay()
                    suspects = suspects & await self._look(agency_id)
            if suspects:
                yield suspects

    async def _look(self, agency_id: str) -> Suspects:
        """How the topic, as far as it is read, differs from the tables."""
        async with self._database.read(agency_id) as connection:
            pool = await pools.find_pool(connection, agency_id)
            told = self._folded.agencies.get(agency_id)
            if pool is None:
                return Suspects(agency_id, told is not None, frozenset(), "entitlements does not know the agency yet")
            now = self._database.clock.now()
            access = await find_access(connection, pool, now)
            itself = (
                told is None
                or _as_of(told, access.revision, now) != access
                or told.revision < await pools.find_first_revision(connection) <= pool.revision  # a raised epoch
                or self._folded.revisions[agency_id] > pool.revision  # the tables were rolled back
            )
            return Suspects(agency_id, itself, frozenset(await self._differing(connection, pool, now)))

    async def _differing(self, connection: Connection, pool: Pool, now: datetime) -> set[str]:
        """The people whose record differs from what they have."""
        agency_id = pool.agency_id
        told = self._folded.seats[agency_id]
        differing: set[str] = set()
        held: set[str] = set()
        after = ""
        while step := await snapshots.list_seats(connection, agency_id, after, STEP_SEATS):
            own = await snapshots.find_own(connection, agency_id, [subject_ref for _, subject_ref, _ in step], now)
            for _, subject_ref, seat in step:
                held.add(subject_ref)
                has = own.get(subject_ref, NOTHING)
                owned = tuple(granted(has.grants)), tuple(used(has.uses)), tuple(further_uses(has.further))
                standing = (pool.generation, seat.state, seat.began_at, *owned)
                if _standing_at(told.get(subject_ref), now) != standing:
                    differing.add(subject_ref)
            after = step[-1][0]
        return differing | (told.keys() - held)

    async def _is_published(self, agency_id: str) -> bool:
        """Wait until an agency's records have left the outbox; returns whether they have."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.read(agency_id) as connection:
                while await snapshots.is_publishing(connection, _TOPIC, agency_id):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def _publish(self, suspects: Suspects, reason: str, context: Context) -> None:
        """Publish people first: once a copy has the agency's record, it takes a person without one to have no seat.

        The revision increases, because callers keep a wrong answer until it does.
        """
        agency_id, subject_refs = suspects.agency_id, sorted(suspects.subject_refs)
        for start in range(0, len(subject_refs) or 1, STEP_SEATS):
            async with self._database.write(agency_id, context=context) as uow:
                if start == 0:
                    _record(uow, suspects, reason)
                await pools.save_revision_above(uow.connection, agency_id, self._folded.revisions[agency_id])
                await publish_subjects(uow, agency_id, subject_refs[start : start + STEP_SEATS])
                if start + STEP_SEATS >= len(subject_refs):
                    await publish_agency(uow, agency_id)


def _as_of(access: AgencyAccess, revision: int, now: datetime) -> AgencyAccess:
    """An agency's record as it would be published now.

    Changes of seats increase the revision without a new record of the agency, and grants and periods end by themselves.
    """
    lasting = {
        "grants": list(_lasting(access.grants, now)),
        "quotas": list(_present(access.quotas, now)),
        "further_uses": list(_lasting(access.further_uses, now)),
    }
    return access.model_copy(update={"revision": revision, **lasting})


def _standing_at(standing: _Standing | None, now: datetime) -> _Standing | None:
    if standing is None or not any(standing[3:]):
        return standing
    grants, quotas, further = standing[3:]
    return (*standing[:3], _lasting(grants, now), _present(quotas, now), _lasting(further, now))


def _lasting(grants: Iterable[_Lasting], now: datetime) -> tuple[_Lasting, ...]:
    return tuple(grant for grant in grants if grant.ends_at is None or grant.ends_at > now)


def _present(uses: Iterable[QuotaUse], now: datetime) -> tuple[QuotaUse, ...]:
    return tuple(use for use in uses if use.period_ends_at > now)


def _record(uow: UnitOfWork, suspects: Suspects, reason: str) -> None:
    audit.record(
        uow,
        command="RebuildProjection",
        agency_id=suspects.agency_id,
        subject=_NAME,
        after={"itself": suspects.itself, "people": len(suspects.subject_refs)},
        reason=reason,
    )
