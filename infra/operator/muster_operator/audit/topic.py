"""Compares the seals on a service's audit topic with those in its database, a batch of records at a time."""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka import ConsumerRecord

from muster_contracts import Decoded, Envelope, MalformedRecord, decode
from muster_contracts.audit import SealedAudit
from muster_operator.audit.finding import Finding, What
from muster_operator.audit.trail import Agency, Trail

# A service keeps seals at least this long; somebody removed a younger one that is missing.
LEAST_RETENTION = timedelta(days=365)

# The most missing or altered seals to keep for the comparison with their rows.
_KEPT = 10_000

# The highest number of a seal or ID of a row that a database can have.
_MAX = 2**63 - 1

_IN_DATABASE = "the database has them"

_FIELDS = ("first_id", "last_id", "count", "sha256", "previous_sha256", "sealed_at")


@dataclass(frozen=True, slots=True)
class _End:
    """The last seal read of an agency, and its position."""

    epoch: int
    sequence: int
    event: SealedAudit


class TopicSeals:
    """The seals on one service's topic. `kept` has the topic's seals that the database lacks or has altered."""

    def __init__(self, service: str, trail: Trail, agency_id: str | None, accepted_epochs: Collection[int]) -> None:
        self._service = service
        self._trail = trail
        self._agency_id = agency_id
        self._accepted = accepted_epochs
        self._ends: dict[str, _End] = {}
        self._wrong: dict[tuple[str, int], tuple[What, str, int]] = {}
        self._wrong_numbers: defaultdict[str, list[int]] = defaultdict(list)  # by agency, in ascending order
        self._findings: list[Finding] = []
        self.kept: dict[tuple[str, int], SealedAudit] = {}

    async def compare(self, records: "Sequence[ConsumerRecord[Any, Any]]") -> None:
        """Compare the topic's next records."""
        read = [seen for record in records if (seen := self._read(record))]
        now = await self._trail.now()
        stored = await self._trail.seals_of(event for _, event in read)
        for (envelope, event), row in zip(read, stored, strict=True):
            if not self._follow(envelope, event):
                continue
            place = event.agency_id, event.number
            if row["number"] is None:
                if (
                    row["lowest"] is not None
                    and event.number < row["lowest"]
                    and now - event.sealed_at >= LEAST_RETENTION
                ):
                    continue  # its retention time has passed
                self._note(place, event, What.SEALS_MISSING, "the topic has it", envelope.epoch)
            elif other := [name for name in _FIELDS if row[name] != getattr(event, name)]:
                self._note(place, event, What.SEAL_ALTERED, f"not as on the topic: {', '.join(other)}", envelope.epoch)

    def _read(self, record: "ConsumerRecord[Any, Any]") -> tuple[Envelope, SealedAudit] | None:
        """The seal in a record, if its agency is being verified."""
        place = f"partition {record.partition}, offset {record.offset}"
        try:
            decoded = decode(record.headers, record.value, record.key)
        except MalformedRecord as error:
            self._findings.append(Finding(self._service, "?", What.UNREADABLE, f"{place}: {error}"))
            return None
        if not isinstance(decoded, Decoded) or not isinstance(decoded.event, SealedAudit):
            self._findings.append(Finding(self._service, "?", What.UNREADABLE, f"{place}: {decoded.envelope.type}"))
            return None
        event = decoded.event
        if self._agency_id not in (None, event.agency_id):
            return None
        if max(event.number, event.first_id, event.last_id, event.count) > _MAX:
            found = f"{place}: it has a number that no database can have"
            self._findings.append(Finding(self._service, event.agency_id, What.UNREADABLE, found))
            return None
        return decoded.envelope, event

    def _follow(self, envelope: Envelope, event: SealedAudit) -> bool:
        """Whether a seal is new, since the relay may publish one again. Notes a seal that breaks the sequence."""
        agency_id, last = event.agency_id, self._ends.get(event.agency_id)
        position = envelope.epoch, envelope.sequence
        if last is not None and position <= (last.epoch, last.sequence):
            if position == (last.epoch, last.sequence) and event != last.event:
                self._find(agency_id, What.FORGED, f"position {envelope.sequence}, epoch {envelope.epoch}", event)
            return False
        self._ends[agency_id] = _End(*position, event)
        if last is not None and envelope.epoch > last.epoch:
            self._supersede(agency_id, event.number, last, envelope.epoch)
            return True
        expected = last.event.number + 1 if last else 1
        if event.number != expected:
            missing = min(expected, event.number), max(expected, event.number) - 1
            self._findings.append(
                Finding(self._service, agency_id, What.NOT_ON_TOPIC, f"seal {event.number} comes next", missing)
            )
        elif last is not None and event.previous_sha256 != last.event.sha256:
            self._find(agency_id, What.CHAIN_BROKEN, "on the topic", event)
        return True

    def _supersede(self, agency_id: str, number: int, last: _End, epoch: int) -> None:
        """Note lost seals: a raised epoch continues from the restored database, without the old epoch's later seals."""
        if last.event.number < number:
            return
        numbers = self._wrong_numbers[agency_id]  # not the range: a writer of the topic could use any number
        lost = slice(bisect_left(numbers, number), bisect_right(numbers, last.event.number))
        for each in numbers[lost]:
            del self._wrong[agency_id, each]
            self.kept.pop((agency_id, each), None)
        del numbers[lost]
        if epoch not in self._accepted:
            lost_seals = number, last.event.number
            self._findings.append(Finding(self._service, agency_id, What.SEALS_LOST, _lost(epoch), lost_seals))

    def _note(self, place: tuple[str, int], event: SealedAudit, what: What, found: str, epoch: int) -> None:
        if place not in self._wrong:
            insort(self._wrong_numbers[event.agency_id], event.number)
        self._wrong[place] = what, found, epoch
        if len(self.kept) < _KEPT:
            self.kept[place] = event

    def _find(self, agency_id: str, what: What, found: str, event: SealedAudit) -> None:
        seals, ids = (event.number, event.number), (event.first_id, event.last_id)
        self._findings.append(Finding(self._service, agency_id, what, found, seals, ids))

    def findings(self, agencies: Sequence[Agency]) -> list[Finding]:
        """The findings, after the topic was read to its end. `agencies` must be read before that end."""
        known = {agency.agency_id: agency for agency in agencies}
        runs: list[Finding] = []
        for (agency_id, number), (what, found, epoch) in sorted(self._wrong.items()):
            agency, event = known.get(agency_id), self.kept.get((agency_id, number))
            if what is What.SEALS_MISSING and agency and agency.epoch > epoch and number > agency.last_number:
                self.kept.pop((agency_id, number), None)
                if agency.epoch in self._accepted:
                    continue
                what, found = What.SEALS_LOST, _lost(agency.epoch)
            ids = (event.first_id, event.last_id) if event else None
            one = Finding(self._service, agency_id, what, found, (number, number), ids)
            if runs and what is not What.SEAL_ALTERED and (whole := _joined(runs[-1], one)):
                runs[-1] = whole
            else:
                runs.append(one)
        for agency in agencies:
            on_topic = self._ends[agency.agency_id].event.number if agency.agency_id in self._ends else 0
            if agency.published > on_topic:
                numbers = on_topic + 1, agency.published
                runs.append(Finding(self._service, agency.agency_id, What.NOT_ON_TOPIC, _IN_DATABASE, numbers))
        return [*self._findings, *runs]


def _lost(epoch: int) -> str:
    """Why seals of the previous epoch are lost, and what to do."""
    return f"epoch {epoch} continues without them; if you know about the restore, pass --accept-epoch {epoch}"


def _joined(one: Finding, next_one: Finding) -> Finding | None:
    """The two findings joined if the second continues the first, otherwise None."""
    if one.seals is None or next_one.seals is None or one.ids is None or next_one.ids is None:
        return None
    same = (one.agency_id, one.what, one.found) == (next_one.agency_id, next_one.what, next_one.found)
    if not same or next_one.seals[0] != one.seals[1] + 1:
        return None
    numbers, ids = (one.seals[0], next_one.seals[1]), (one.ids[0], next_one.ids[1])
    return Finding(one.service, one.agency_id, one.what, one.found, numbers, ids)
