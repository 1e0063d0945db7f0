"""The past: asked about an instant, the service repeats its answer, and a correction shows what was known when."""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from muster_entitlements.bootstrap import make_retentions
from muster_entitlements.settings import EntitlementsSettings
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out
from tests.integration.entitlements.test_seat_trials import CANVAS
from tests.integration.entitlements.test_windows import decision, send, windows

PEOPLE = range(3)
FEATURES = ("frontier-models", "deep-research", "advanced-voice-mode", "canvas")
STEPS = 10
FREE = FRONTIER["key"]
HOUR = timedelta(hours=1)

Recorded = dict[str, Any]


def text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


async def get(entitlements: Entitlements, path: str, **params: str) -> Any:
    reply = await entitlements.get(path, **params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def recorded(entitlements: Entitlements, **instants: str) -> Recorded:
    """All answers, for now or for an instant."""
    only_at = {name: value for name, value in instants.items() if name == "at"}
    only_recorded = {name: value for name, value in instants.items() if name == "recorded_at"}
    return {
        "pool": await get(entitlements, "pool", **instants),
        "windows": (await get(entitlements, "windows", **instants))["items"],
        "grants": (await get(entitlements, "grants", limit="200", **only_recorded))["items"],
        "seats": [without_person(seat) for seat in (await get(entitlements, "seats", limit="200", **only_at))["items"]],
        "seat-counts": await get(entitlements, "seat-counts", **only_at),
        "checks": await checks(entitlements, **instants),
    }


async def checks(entitlements: Entitlements, **instants: str) -> dict[tuple[int, str], Recorded]:
    """The answers one by one, which are the same in bulk."""
    features = (await entitlements.service.client.get("/v1/catalog")).json()["features"]
    pairs = [(person, feature["key"]) for person in PEOPLE for feature in features]
    alone = [await get(entitlements, "checks", subject=address(who), feature=what, **instants) for who, what in pairs]
    body = [{"subject": address(person), "feature": feature} for person, feature in pairs]
    own = [{"agency_id": entitlements.agency, **pair} for pair in body]
    for path, asked in ((f"/v1/agencies/{entitlements.agency}/checks", body), ("/v1/checks", own)):
        reply = await entitlements.service.client.post(path, params=instants, json={"pairs": asked})
        assert (reply.status_code, reply.json()["answers"]) == (200, alone), reply.text
    return {pair: without_use(answer) for pair, answer in zip(pairs, alone, strict=True)}


def address(person: int) -> str:
    return f"person.{person}@nasa.gov"


def without_person(seat: Mapping[str, Any]) -> Recorded:
    return {name: value for name, value in seat.items() if name not in {"email", "name", "unused_since"}}


def without_use(answer: Mapping[str, Any]) -> Recorded:
    """Counted use has no history."""
    return {name: value for name, value in answer.items() if name not in {"used", "remaining"}}


def catalog(chance: random.Random) -> list[dict[str, Any]]:
    """A catalog with trials of random lengths: two for the agency, and one for each seat."""

    def terms(feature: dict[str, Any]) -> dict[str, Any]:
        return feature | {"trial_days": chance.choice([10, 40, 90]), "grace_days": chance.choice([None, 5, 20])}

    voice = RESEARCH | {"key": "advanced-voice-mode", "monthly_quota_after": chance.choice([5, 60])}
    return [FRONTIER, terms(RESEARCH), terms(voice), terms(CANVAS)]


class Life:
    """Random changes to an agency, some of which are refused."""

    def __init__(self, entitlements: Entitlements, chance: random.Random) -> None:
        self.own = entitlements
        self.chance = chance
        self.enrollment = 1
        self.suspended = False
        self.enrolled_at = START
        self.unread: list[tuple[datetime, datetime]] = []  # from a withdrawal to when it was read

    async def change(self) -> None:
        actions = [self._assign, self._assign, self._change_seat, self._change_seat, self._change_seat]
        actions += [self._grant, self._revoke_grant, self._end_trial, self._extend, self._resize]
        actions += [self._suspend, self._enroll_again, self._change_catalog, self._consume]
        await self.chance.choice(actions)()

    async def _assign(self) -> None:
        state = self.chance.choice(["reserved", "invited", "assigned"])
        await self.own.post("seats", {"email": address(self.chance.choice(PEOPLE)), "state": state})

    async def _change_seat(self) -> None:
        held = [seat for seat in (await get(self.own, "seats", limit="200"))["items"] if seat["state"] != "revoked"]
        if not held:
            return await self._assign()
        seat, action = self.chance.choice(held), self.chance.choice(ACTIONS)
        body = {"email": address(self.chance.choice(PEOPLE))} if action == "transfer" else None
        await self.own.post(f"seats/{seat['seat_id']}/{action}", body)
        return None

    async def _consume(self) -> None:
        """The first use of a seat activates it."""
        person = address(self.chance.choice(PEOPLE))
        await self.own.post("usage/consume", {"subject": person, "feature": self.chance.choice(["canvas", FREE])})

    async def _grant(self) -> None:
        now = self.own.service.clock.now()
        feature = self.chance.choice(FEATURES)
        body = {"feature": feature, "reason": "pilot", "ends_at": text(now + self.chance.randrange(1, 40) * DAY)}
        if self.chance.random() < 0.5:
            body["subject"] = address(self.chance.choice(PEOPLE))
        if feature != "frontier-models" and self.chance.random() < 0.5:
            body["mode"] = "quota"
        if self.chance.random() < 0.5:
            body["starts_at"] = text(now + DAY / 2)
        await self.own.post("grants", body)

    async def _revoke_grant(self) -> None:
        for grant in (await get(self.own, "grants"))["items"][:1]:
            await self.own.post(f"grants/{grant['grant_id']}/revocation", {"reason": "over"})

    async def _end_trial(self) -> None:
        path = decision(self.own, "end", self.chance.choice(FEATURES), await windows(self.own))
        await send(self.own, path, "ann", reason="misuse")

    async def _extend(self) -> None:
        path = decision(self.own, "extension", self.chance.choice(FEATURES), await windows(self.own))
        end = text(START + self.chance.randrange(61, 120) * DAY)
        proposed = await send(self.own, path, "ann", ends_at=end, reason="pilot")
        if proposed.status_code == 202:
            await send(self.own, f"{proposed.headers['location']}/approval", "bob")

    async def _resize(self) -> None:
        await self.own.post("pool/resize", {"cap": self.chance.randrange(4, 9)})

    async def _suspend(self) -> None:
        self.suspended = not self.suspended
        same: Any = {"agency_id": "NASA", "enrollment_id": self._enrollment_id}
        now = self.own.service.clock.now()
        event = (
            AgencySuspended(**same, reason="atu_lapsed", suspended_at=now)
            if self.suspended
            else AgencyReinstated(**same, reinstated_at=now)
        )
        await self._publish(event)

    async def _enroll_again(self) -> None:
        now = self.own.service.clock.now()
        left_at = max(now - self.chance.choice([0, 10, 100]) * HOUR, self.enrolled_at)
        await self._publish(self.own.withdrawn(self._enrollment_id, at=left_at))
        self.unread.append((left_at, now))
        self.enrollment, self.suspended, self.enrolled_at = self.enrollment + 1, False, now
        await self._publish(self.own.enrolled(6, self._enrollment_id).model_copy(update={"starts_at": now}))

    async def _change_catalog(self) -> None:
        number = (await publish(self.own, catalog(self.chance)))["number"]
        await self.own.eventually(lambda: rolled_out(self.own, number))

    @property
    def _enrollment_id(self) -> str:
        return f"enr_{self.enrollment}"

    async def _publish(self, event: Any) -> None:
        """Publish an event, and wait until it and its consequences are applied."""
        before = (await self.own.pool())["revision"]
        await self.own.service.publish(event)

        async def there() -> bool:
            pool = await self.own.pool()
            return bool(pool["revision"] > before and pool["revoking"] == 0)

        await self.own.eventually(there)


ACTIONS = ("invitation", "activation", "activation", "suspension", "reinstatement", "transfer", "revocation")


async def test_what_was_answered_at_an_instant_is_answered_again_for_it(entitlements: Entitlements) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    clock = entitlements.service.clock
    await publish(entitlements, catalog(chance))
    await entitlements.enroll(cap=6)
    life = Life(entitlements, chance)
    answers: dict[str, Recorded] = {}
    for _ in range(STEPS):
        for _ in range(chance.randrange(1, 4)):
            await life.change()
        answers[text(clock.now())] = await recorded(entitlements)
        clock.move(clock.now() + timedelta(hours=chance.randrange(1, 150)))
        await entitlements.eventually(lambda: settled(entitlements))
    for instant, answered in answers.items():
        assert await recorded(entitlements, at=instant, recorded_at=instant) == answered, instant
        # Later facts move ends that were still ahead, and with them how long an answer was to hold.
        today = await recorded(entitlements, at=instant)
        if any(left_at <= datetime.fromisoformat(instant) < read_at for left_at, read_at in life.unread):
            assert {check["reason"] for check in today["checks"].values()} == {"withdrawn"}, instant
            continue
        for name in ("pool", "seats", "seat-counts"):
            assert today[name] == answered[name], instant
        for pair, check in answered["checks"].items():
            ahead = dict.fromkeys(("valid_until", "resets_at"))
            assert today["checks"][pair] | ahead == check | ahead, (instant, pair)

    kept_from = chance.choice(list(answers))
    await purge(entitlements, datetime.fromisoformat(kept_from))
    # If everything before it happened at one instant, there was no version to delete.
    purged = await entitlements.service.admin.fetchval("select before from history_purge")
    for instant in chance.sample(list(answers), 4):
        if purged is not None and datetime.fromisoformat(instant) < purged:
            assert (await entitlements.get("pool", at=instant)).status_code == 422, (instant, kept_from)
        else:
            again = await recorded(entitlements, at=instant, recorded_at=instant)
            assert again == answers[instant], (instant, kept_from)


async def purge(entitlements: Entitlements, before: datetime) -> int:
    """Delete the versions that ended by an instant, one by one; returns how many there were."""
    purged = 0
    async with entitlements.service.runtime.database.connection() as worker:
        for retention in make_retentions(EntitlementsSettings(environment="sandbox", history_retention_days=30)):
            while batch := await retention.purge(worker, before, 1):
                assert batch == 1
                purged += batch
            oldest = await retention.oldest(worker)
            assert oldest is None or oldest > before
    return purged


async def settled(entitlements: Entitlements) -> bool:
    """Whether nothing is due: an invitation that has expired is a change."""
    now = entitlements.service.clock.now()
    return bool(
        await entitlements.service.admin.fetchval("select not exists (select from deadline where due_at <= $1)", now)
    )
