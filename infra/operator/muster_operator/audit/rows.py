"""Compares the rows of one agency's trail with its seals, in one pass over both."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime

from muster_contracts.audit import SealedAudit, sealed_sha256
from muster_operator.audit.finding import Finding, What
from muster_operator.audit.trail import Agency, Row, Trail

# Rows per progress report.
_TOLD_ROWS = 50_000


class TrailRows:
    """An agency's rows up to its last seal, and the seals that should cover them.

    `kept` are the topic's seals, which take precedence over the database's. `tell` gets the number of rows compared.
    """

    def __init__(
        self,
        service: str,
        trail: Trail,
        agency: Agency,
        kept: Mapping[tuple[str, int], SealedAudit],
        tell: Callable[[int], None],
    ) -> None:
        self._service = service
        self._trail = trail
        self._agency = agency
        self._kept = {number: event for (agency_id, number), event in kept.items() if agency_id == agency.agency_id}
        self._tell = tell
        self._next: Row | None = None
        self._latest: datetime | None = None  # the date of the last row before the next ones to compare
        self._rows: AsyncIterator[Row] | None = None
        self._findings: list[Finding] = []
        self.compared = 0

    async def compare(self, since: datetime | None = None) -> list[Finding]:
        """Compare all sealed rows, or only those sealed since an instant."""
        agency = self._agency
        numbers = sorted(self._kept)
        first = min([agency.first_number, *numbers])
        last = max([agency.last_number, *numbers])
        if since is not None:
            first = await self._trail.first_since(agency.agency_id, since) or last + 1
        after, before = await self._trail.end_of(agency.agency_id, first - 1)
        last_id = max([agency.last_id, *(event.last_id for event in self._kept.values())])
        self._latest = await self._trail.last_recorded_at(agency.agency_id, after)
        self._rows = self._trail.rows(agency.agency_id, after, last_id)
        await self._step()
        end, expected = after, first
        known = first == 1 or after > 0
        async for seal in self._seals(first, last):
            known = known and seal["number"] == expected  # otherwise the service dropped seals during the run
            expected = seal["number"] + 1
            of_topic = seal["number"] in self._kept  # TopicSeals checks its chain
            if known and not of_topic and seal["previous_sha256"] != before:
                self._find(What.CHAIN_BROKEN, "in the database", seal)
            known, before = True, seal["sha256"]
            await self._skip(end, seal["first_id"])
            await self._compare(seal)
            end = max(end, seal["last_id"])
        await self._skip(end, last_id + 1)
        self._tell(self.compared % _TOLD_ROWS)
        return self._findings

    async def _seals(self, first: int, last: int) -> AsyncIterator[Row]:
        """The seals in order; the topic's if the database's differs or is missing."""
        kept = {number: event for number, event in self._kept.items() if first <= number <= last}
        waiting = sorted(kept)
        async for seal in self._trail.seals(self._agency.agency_id, first, last):
            while waiting and waiting[0] < seal["number"]:
                yield kept[waiting.pop(0)].model_dump()
            if waiting and waiting[0] == seal["number"]:
                yield kept[waiting.pop(0)].model_dump()
            else:
                yield seal
        for number in waiting:
            yield kept[number].model_dump()

    async def _step(self) -> None:
        assert self._rows is not None
        self._next = await anext(self._rows, None)
        if self._next is not None:
            self.compared += 1
            if self.compared % _TOLD_ROWS == 0:
                self._tell(_TOLD_ROWS)

    async def _skip(self, end: int, before: int) -> None:
        """Skip the rows below an ID, which no seal covers: they did not exist when the next seal was made."""
        count, first, last = 0, 0, 0
        while self._next is not None and self._next["id"] < before:
            count, first, last = count + 1, first or self._next["id"], self._next["id"]
            await self._step()
        if count:
            found = f"{count} rows between the seals" if end else f"{count} rows before the first seal"
            self._findings.append(
                Finding(self._service, self._agency.agency_id, What.INSERTED, found, None, (first, last))
            )

    async def _compare(self, seal: Row) -> None:
        """Compare the next rows with the seal that should cover them."""
        rows: list[Row] = []
        more = 0
        while self._next is not None and self._next["id"] <= seal["last_id"]:
            if len(rows) < seal["count"]:
                rows.append(self._next)
            else:
                more += 1
            await self._step()
        if more:
            self._find(What.INSERTED, f"{seal['count'] + more} rows instead of {seal['count']}", seal)
        elif len(rows) < seal["count"]:
            self._find(What.REMOVED, f"{len(rows)} rows instead of {seal['count']}", seal)
        elif undated := [row["id"] for row in rows if row["recorded_at"] is None]:
            self._find(What.UNDATED, f"row {undated[0]}", seal)
        elif self._hash(rows, seal) != seal["sha256"]:
            instants = [row["recorded_at"] for row in rows]
            if instants == sorted(instants):
                self._find(What.EDITED, f"{len(rows)} rows, whose hash differs", seal)
            else:
                self._find(What.REORDERED, "a row is dated before the row that precedes it", seal)
        else:
            self._check_dates(rows, seal)

    def _check_dates(self, rows: Sequence[Row], seal: Row) -> None:
        """Find backdated rows.

        An agency's instants never go back, so somebody wrote an earlier date before the row was sealed.
        """
        for row in rows:
            if self._latest is not None and row["recorded_at"] < self._latest:
                found = f"row {row['id']} is dated before the row that precedes it"
                self._find(What.BACKDATED, found, seal)
                break
            self._latest = row["recorded_at"]
        self._latest = rows[-1]["recorded_at"]  # report one row dated in the future only once

    def _hash(self, rows: Sequence[Row], seal: Row) -> str:
        return sealed_sha256(
            map(dict, rows),
            service=self._service,
            agency_id=self._agency.agency_id,
            number=seal["number"],
            previous_sha256=seal["previous_sha256"],
            sealed_at=seal["sealed_at"],
        )

    def _find(self, what: What, found: str, seal: Row) -> None:
        numbers, ids = (seal["number"], seal["number"]), (seal["first_id"], seal["last_id"])
        self._findings.append(Finding(self._service, self._agency.agency_id, what, found, numbers, ids))
