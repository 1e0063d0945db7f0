"""A copy agrees with the service whatever happens: random changes, use, grants, and versions of the catalog."""

import random
from datetime import timedelta
from typing import Any

from muster_entitlements_client import EntitlementsClient
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.test_as_of import PEOPLE, Life, address, catalog, text
from tests.integration.entitlements.test_catalog import publish, rolled_out
from tests.integration.entitlements.test_rollouts import SKETCHES
from tests.integration.entitlements.test_snapshots import COUNTED, following

STEPS = 4

FEATURES = ("frontier-models", "deep-research", "advanced-voice-mode", "canvas", "sketches")


class BusyLife(Life):
    """Also the use of features, and grants of further uses. No quota of a later version is lower."""

    limit = 3

    async def change(self) -> None:
        actions = [super().change, super().change, self._consume, self._consume, self._consume, self._grant_uses]
        await self.chance.choice(actions)()

    def features(self) -> list[dict[str, Any]]:
        """The next version of the catalog."""
        self.limit += self.chance.choice([0, 0, 2])
        found = catalog(self.chance)
        for feature in found:
            if "monthly_quota_after" in feature:
                feature["monthly_quota_after"] = self.limit
        return [*found, SKETCHES | {"quota": {"limit": self.limit + 2, "per": "agency"}}]

    async def _change_catalog(self) -> None:
        number = (await publish(self.own, self.features()))["number"]
        await self.own.eventually(lambda: rolled_out(self.own, number))

    async def _consume(self) -> None:
        use = {"subject": address(self.chance.choice(PEOPLE)), "feature": self.chance.choice(FEATURES)}
        await self.own.post("usage/consume", use | {"amount": self.chance.randrange(1, 4)})

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


async def differences(entitlements: Entitlements, client: EntitlementsClient) -> list[Any]:
    """Where the client answers otherwise than the service does, but for how it counts revisions and use."""
    rows = await entitlements.service.admin.fetch("select distinct subject_ref from seat")
    pairs = [(row["subject_ref"], feature) for row in rows for feature in FEATURES]
    if not pairs:
        return []
    body = {"pairs": [{"subject": subject, "feature": feature} for subject, feature in pairs]}
    told = (await entitlements.post("checks", body)).json()["answers"]
    found = []
    for (subject, feature), expected in zip(pairs, told, strict=True):
        answer = client.check(subject, feature, agency_id=entitlements.agency)
        until = answer.valid_until and answer.valid_until.isoformat().replace("+00:00", "Z")
        own = {**answer._asdict(), "valid_until": until, "revision": expected["revision"]}
        names = [name for name in own.keys() & expected.keys() - COUNTED if own[name] != expected[name]]
        if names:
            found.append((subject, feature, [(name, own[name], expected[name]) for name in names]))
    return found


async def test_a_copy_agrees_with_the_service_whatever_happens(entitlements: Entitlements) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    service, life = entitlements.service, BusyLife(entitlements, random.Random(seed))
    await publish(entitlements, life.features())
    await entitlements.enroll(cap=6)

    async def agrees() -> bool:
        now = service.clock.now()
        settled = await service.admin.fetchval(
            """
            select
                not exists (select from outbox) and not exists (select from closing)
                and not exists (select from deadline where due_at <= $1)
            """,
            now,
        )
        found = await differences(entitlements, client) if settled else ["not settled"]
        assert not found, f"{now}: {found}"
        return True

    async with following(entitlements) as client:
        for _ in range(STEPS):
            for _ in range(life.chance.randrange(1, 5)):
                await life.change()
            for hours in (0, life.chance.randrange(1, 150)):
                service.clock.move(service.clock.now() + timedelta(hours=hours))
                await entitlements.eventually(agrees)
