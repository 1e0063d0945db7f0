"""The year's new features: a longer trial, a new catalog version, trials per seat, and an agency-wide quota."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from muster_contracts.entitlements import FeatureUsed
from muster_local.coordinator import Coordinator
from muster_local.demo.cast import Agency
from muster_local.demo.program import ProgramClient, demand
from muster_local.demo.scene import Scene, moment

RESEARCH = "deep-research"
RESEARCH_QUOTA = 50

CANVAS: dict[str, Any] = {
    "key": "canvas",
    "name": "Canvas",
    "mode": "unlimited",
    "trial_days": 30,
    "mode_after": "none",
    "anchor": "seat",
    "ends_soon_days": [7, 1],
}
AGENTS: dict[str, Any] = {
    "key": "agents",
    "name": "Agents",
    "mode": "quota",
    "mode_after": "none",
    "quota": {"limit": 20, "per": "agency"},
}

_EXTENDED_AFTER = timedelta(days=30)
_CATALOG_AT = moment(2026, 2, 2)
_BEGUN_AT = moment(2026, 2, 3)
_USED_AT = moment(2026, 2, 4)
_JOINED_AT = moment(2026, 2, 10)
_BACK_AT = moment(2026, 3, 16)

_EARLY = 2  # people who use their seats first; one more joins them


@dataclass(frozen=True)
class Use:
    """A number of uses of a feature, reported afterward or requested; `used` is the total in the reply, if any."""

    at: datetime
    agency_id: str
    feature: str
    amount: int
    reported: bool
    counted: bool
    used: int | None = None


class NewFeatures:
    """The scenes of the agency that gets the new features first, and of the program's two officers."""

    def __init__(
        self, program: ProgramClient, approver: ProgramClient, coordinator: Coordinator, agency: Agency
    ) -> None:
        """`approver` is a different person than `program`."""
        self.uses: list[Use] = []
        self._program = program
        self._approver = approver
        self._coordinator = coordinator
        self._agency = agency
        self._path = f"agencies/{agency.id}"

    def scenes(self) -> list[Scene]:
        """The scenes, in order of time."""
        name = self._agency.id
        return [
            Scene(
                self._agency.enrolls_at + _EXTENDED_AFTER,
                f"{name} gets a longer trial of Deep Research, which a second officer approves",
                self._extend,
            ),
            Scene(_CATALOG_AT, "The catalog allows more Deep Research, and has Canvas and Agents", self._publish),
            Scene(
                _BEGUN_AT, f"People of {name} use their seats and begin their trials", partial(self._begin, 0, _EARLY)
            ),
            Scene(_USED_AT, f"{name} uses all of its quota of Agents", self._use_up),
            Scene(_JOINED_AT, f"Another person at {name} begins a trial", partial(self._begin, _EARLY, _EARLY + 1)),
            Scene(_BACK_AT, f"{name} has a new quota; its trials of Canvas are over", self._come_back),
        ]

    async def _extend(self) -> None:
        window = await self._window()
        request = {
            "ends_at": (datetime.fromisoformat(window["ends_at"]) + timedelta(days=30)).isoformat(),
            "reason": "the pilot continues",
        }
        path = f"{self._path}/windows/{window['window_id']}/extension"
        preview = await self._program.ask("entitlements", f"{path}/preview", request)
        proposal = await self._program.post("entitlements", path, request, expect=202)
        demand(await self._window() == window, "the trial was extended before anybody approved it")
        await self._approve(proposal)
        demand(await self._window() == preview["window"], "the trial is not as the preview said")

    async def _window(self) -> Any:
        windows = (await self._program.get("entitlements", f"{self._path}/windows"))["items"]
        return next(window for window in windows if window["feature"] == RESEARCH)

    async def _publish(self) -> None:
        """Publish the second version of the catalog, and wait until every agency has it."""
        present = await self._program.get("entitlements", "catalog")
        changed = [
            feature | ({"monthly_quota_after": RESEARCH_QUOTA} if feature["key"] == RESEARCH else {})
            for feature in present["features"]
        ]
        catalog = {"rule": "now", "features": [*changed, CANVAS, AGENTS]}
        draft = await self._program.put("entitlements", "catalog/draft", catalog)
        revision = f'"{draft["revision"]}"'
        proposal = await self._program.post("entitlements", "catalog/draft/publication", expect=202, if_match=revision)
        await self._approve(proposal)
        await self._coordinator.settle()
        version = await self._program.get("entitlements", f"catalog/versions/{draft['number']}")
        demand(version["agencies_left"] == 0, f"{version['agencies_left']} agencies do not have the new catalog")

    async def _approve(self, proposal: dict[str, Any]) -> None:
        approval = f"proposals/{proposal['proposal_id']}/approval"
        await self._program.post("entitlements", approval, expect=403)  # nobody may approve their own proposal
        await self._approver.post("entitlements", approval, expect=200)

    async def _begin(self, first: int, end: int) -> None:
        for seat in (await self._people())[first:end]:
            path = f"{self._path}/seats/{seat['seat_id']}/activation"
            await self._program.post("entitlements", path, expect=200)
            await self._check(seat["subject_ref"], "allowed")

    async def _use_up(self) -> None:
        person, *others = [seat["subject_ref"] for seat in (await self._people())[:_EARLY]]
        await self._consume(person, 9)
        await self._report([*others, person][0])
        await self._consume(person, 6)
        await self._consume(person, 4, expect=409)  # all or nothing
        await self._consume(person, 3)
        await self._consume(person, 1, expect=409)

    async def _come_back(self) -> None:
        people = (await self._people())[: _EARLY + 1]
        for seat in people:
            await self._check(seat["subject_ref"], "refused")
        await self._consume(people[0]["subject_ref"], 1)

    async def _people(self) -> Sequence[Any]:
        seats: Sequence[Any] = (await self._program.get("entitlements", f"{self._path}/seats", limit=_EARLY + 1))[
            "items"
        ]
        return seats

    async def _check(self, subject: str, verdict: str) -> None:
        answer = await self._program.get("entitlements", f"{self._path}/checks", subject=subject, feature=CANVAS["key"])
        demand(answer["verdict"] == verdict, f"Canvas is {answer['verdict']} ({answer['reason']}), not {verdict}")

    async def _consume(self, subject: str, amount: int, *, expect: int = 200) -> None:
        request = {"subject": subject, "feature": AGENTS["key"], "amount": amount}
        path = f"{self._path}/usage/consume"
        reply = await self._program.post("entitlements", path, request, expect=expect, audited=False)
        self._note(amount, reported=False, counted=expect == 200, used=reply.get("used"))

    async def _report(self, subject: str) -> None:
        """Report two uses, one of them twice."""
        batch = [self._event(identifier, subject) for identifier in ("1", "2", "1")]
        reply = await self._program.upload(
            "entitlements",
            "usage",
            json.dumps(batch).encode(),
            "application/cloudevents-batch+json",
            audited=False,
        )
        demand(reply["refused"] == [], f"use that was reported is refused: {reply['refused']}")
        self._note(reply["counted"], reported=True, counted=True)
        self._note(reply["repeated"], reported=True, counted=False)

    def _event(self, identifier: str, subject: str) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": identifier,
            "source": "https://agents.example.gov",
            "type": FeatureUsed.event_type,
            "time": (_USED_AT - timedelta(hours=1)).isoformat(),
            "data": {"agency_id": self._agency.id, "subject_ref": subject, "feature": AGENTS["key"], "amount": 1},
        }

    def _note(self, amount: int, *, reported: bool, counted: bool, used: int | None = None) -> None:
        at = self._coordinator.now
        assert at is not None  # the year has begun
        self.uses.append(Use(at, self._agency.id, AGENTS["key"], amount, reported, counted, used))
