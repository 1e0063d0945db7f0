"""Random changes to an agency, its people, and what they use."""

import random
from datetime import datetime, timedelta
from typing import Any

from muster_contracts.enrollment import AgencyReinstated, AgencySuspended
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out
from tests.integration.entitlements.test_rollouts import SKETCHES
from tests.integration.entitlements.test_seat_trials import CANVAS
from tests.integration.entitlements.test_usage import report, used
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually

PEOPLE = range(3)
FEATURES = ("frontier-models", "deep-research", "advanced-voice-mode", "canvas", "sketches", "notes")
HOUR = timedelta(hours=1)

# A trial within a quota of each person.
NOTES: dict[str, Any] = {"key": "notes", "name": "Notes", "mode": "quota", "trial_days": 60, "mode_after": "none"}


def text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def address(person: int) -> str:
    return f"person.{person}@nasa.gov"


async def get(entitlements: Entitlements, path: str, **params: str) -> Any:
    reply = await entitlements.get(path, **params)
    assert reply.status_code == 200, reply.text
    return reply.json()


class Life:
    """Random changes to an agency, some of which are refused."""

    def __init__(self, entitlements: Entitlements, chance: random.Random) -> None:
        self.own = entitlements
        self.chance = chance
        self.enrollment = 1
        self.suspended = False
        self.enrolled_at = START
        self.unread: list[tuple[datetime, datetime]] = []  # from a withdrawal to when it was read
        self.limit = 3

    async def change(self) -> None:
        actions = [self._assign, self._assign, self._change_seat, self._change_seat, self._change_seat]
        actions += [self._grant, self._revoke_grant, self._end_trial, self._extend, self._resize]
        actions += [self._suspend, self._enroll_again, self._change_catalog]
        actions += [self._grant_uses, self._grant_uses, *[self._consume] * 6, *[self._report] * 4]
        await self.chance.choice(actions)()

    def features(self) -> list[dict[str, Any]]:
        """The next version of the catalog: trials of random lengths, and quotas of random limits."""
        self.limit = max(self.limit + self.chance.choice([-2, 0, 2]), 1)
        voice = RESEARCH | {"key": "advanced-voice-mode"}
        return [
            FRONTIER,
            *(self._trial(feature) for feature in (RESEARCH, voice, CANVAS)),
            SKETCHES | {"quota": {"limit": self.limit + 2, "per": "agency", "hard": self.chance.random() < 0.8}},
            NOTES | {"quota": {"limit": self.limit}},
        ]

    def _trial(self, feature: dict[str, Any]) -> dict[str, Any]:
        days = {"trial_days": self.chance.choice([10, 40, 90]), "grace_days": self.chance.choice([None, 5, 20])}
        quota = {"monthly_quota_after": self.limit} if "monthly_quota_after" in feature else {}
        return feature | days | quota

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
        use = {"subject": address(self.chance.choice(PEOPLE)), "feature": self.chance.choice(FEATURES)}
        await self.own.post("usage/consume", use | {"amount": self.chance.randrange(1, 4)})

    async def _report(self) -> None:
        rows = await self.own.service.admin.fetch("select distinct subject_ref from seat order by subject_ref")
        if rows:
            subject, feature = self.chance.choice(rows)["subject_ref"], self.chance.choice(FEATURES)
            at = self.own.service.clock.now() - self.chance.randrange(300) * HOUR
            amount = self.chance.randrange(1, 8)
            await report(self.own, used(self.chance.random(), subject, at, amount, feature=feature))

    async def _grant_uses(self) -> None:
        now = self.own.service.clock.now()
        body = {"feature": self.chance.choice(FEATURES), "amount": self.chance.randrange(1, 4), "reason": "pilot"}
        if self.chance.random() < 0.5:
            body["subject"] = address(self.chance.choice(PEOPLE))
        if self.chance.random() < 0.5:
            body["starts_at"] = text(now + self.chance.randrange(1, 5) * DAY)
        if self.chance.random() < 0.5:
            body["ends_at"] = text(now + self.chance.randrange(6, 20) * DAY)
        await self.own.post("quota-grants", body)

    async def _grant(self) -> None:
        now = self.own.service.clock.now()
        feature = self.chance.choice(FEATURES)
        end = text(now + self.chance.randrange(1, 40) * DAY)
        body: dict[str, Any] = {"feature": feature, "reason": "pilot", "ends_at": end}
        if self.chance.random() < 0.5:
            body["subject"] = address(self.chance.choice(PEOPLE))
        if feature != "frontier-models" and self.chance.random() < 0.5:
            body |= {"mode": "quota", "allow_below_use": True}
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
        read_at = self.own.service.clock.now()
        left_at = max(read_at - self.chance.choice([0, 10, 100]) * HOUR, self.enrolled_at)
        await self._publish(self.own.withdrawn(self._enrollment_id, at=left_at))
        self.unread.append((left_at, read_at))
        self.enrollment, self.suspended, self.enrolled_at = self.enrollment + 1, False, read_at
        again = self.own.enrolled(6, self._enrollment_id).model_copy(update={"starts_at": read_at})
        await self._publish(again)

    async def _change_catalog(self) -> None:
        number = (await publish(self.own, self.features(), allow_below_use=True))["number"]
        await eventually(lambda: rolled_out(self.own, number))

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

        await eventually(there)


ACTIONS = ("invitation", "activation", "activation", "suspension", "reinstatement", "transfer", "revocation")
