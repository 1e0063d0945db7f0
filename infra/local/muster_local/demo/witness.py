"""Compares a local copy of the entitlements with the service's own answers whenever the clock stops."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster_entitlements_client import Answer, EntitlementsClient, NotReady
from muster_local.demo import cast
from muster_local.demo.program import ProgramClient

# What happens to them: one tries the new features, one is suspended, one withdraws, one runs out of seats, and one does
# not renew.
_WATCHED = (cast.TRYING, cast.LAPSING, cast.LEAVING, cast.CROWDED, cast.DECLINING)
_PEOPLE = 4

# A reference that belongs to nobody.
_STRANGER = f"sub_{0:032x}"

# How long to wait for the copy. It has a record within milliseconds.
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Access:
    """The content of an answer to a check: verdict, reason, how long it is valid, and the monthly quota."""

    verdict: str
    reason: str
    valid_until: datetime | None
    monthly_quota: int | None

    @classmethod
    def of_copy(cls, answer: Answer) -> "Access":
        return cls(answer.verdict.value, answer.reason, answer.valid_until, answer.monthly_quota)

    @classmethod
    def of_service(cls, answer: dict[str, Any]) -> "Access":
        until = answer["valid_until"]
        return cls(
            answer["verdict"],
            answer["reason"],
            None if until is None else datetime.fromisoformat(until),
            answer["monthly_quota"],
        )


_UNKNOWN = Access("refused", "unknown", None, None)


@dataclass(frozen=True)
class Comparison:
    """The two answers to a check at an instant."""

    at: datetime
    agency_id: str
    subject_ref: str
    feature: str | None
    local: Access
    told: Access


class Witness:
    """Asks the copy and the service about the same people, and every feature of the newest catalog."""

    def __init__(self, client: EntitlementsClient, program: ProgramClient) -> None:
        self.comparisons: list[Comparison] = []
        self._client = client
        self._program = program
        self._people: dict[str, list[str]] = {}
        self._patience = _PATIENCE_SECONDS

    async def compare(self, at: datetime) -> None:
        """Ask about everybody, at an instant when every service is quiet."""
        catalog = await self._program.get("entitlements", "catalog")
        features = [None, *(feature["key"] for feature in catalog["features"])]
        people = await asyncio.gather(*(self._people_of(agency_id) for agency_id in _WATCHED))
        asked = [
            (agency_id, subject_ref, feature)
            for agency_id, own in zip(_WATCHED, people, strict=True)
            for subject_ref in (*own, _STRANGER)
            for feature in features
        ]
        pairs = [{"agency_id": agency_id, "subject": who, "feature": feature} for agency_id, who, feature in asked]
        reply = await self._program.ask("entitlements", "checks", {"pairs": pairs})
        told = [Access.of_service(answer) for answer in reply["answers"]]
        local = await self._local(asked, told)
        self.comparisons += [
            Comparison(at, *each, own, theirs) for each, own, theirs in zip(asked, local, told, strict=True)
        ]

    async def _local(self, asked: Sequence[tuple[str, str, str | None]], told: Sequence[Access]) -> Sequence[Access]:
        """The copy's answers once it has caught up. If it does not catch up in time, later calls do not wait."""
        give_up_at = time.monotonic() + self._patience
        while True:
            local = [self._of_copy(*each) for each in asked]
            if local == told:
                return local
            if time.monotonic() > give_up_at:
                self._patience = 0.0
                return local
            await asyncio.sleep(_PAUSE_SECONDS)

    def _of_copy(self, agency_id: str, subject_ref: str, feature: str | None) -> Access:
        """The copy's answer.

        Before the first agency enrolls, the copy has none, and the service knows nobody either.
        """
        try:
            return Access.of_copy(self._client.check(subject_ref, feature, agency_id=agency_id))
        except NotReady:
            return _UNKNOWN

    async def _people_of(self, agency_id: str) -> Sequence[str]:
        """The first people who ever had a seat; empty until there are some."""
        if agency_id not in self._people:
            seats = await self._program.get("entitlements", f"agencies/{agency_id}/seats", limit=_PEOPLE)
            if not seats["items"]:
                return ()
            self._people[agency_id] = [seat["subject_ref"] for seat in seats["items"]]
        return self._people[agency_id]
