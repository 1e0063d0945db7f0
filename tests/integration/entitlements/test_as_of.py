"""The past: asked about an instant, the service repeats its answer, and a correction shows what was known when."""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from muster_entitlements.bootstrap import make_retentions
from muster_entitlements.settings import EntitlementsSettings
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.random_life import PEOPLE, Life, address, get, text
from tests.integration.entitlements.test_catalog import publish
from tests.support.eventually import eventually

STEPS = 10

Recorded = dict[str, Any]


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


def without_person(seat: Mapping[str, Any]) -> Recorded:
    return {name: value for name, value in seat.items() if name not in {"email", "name", "unused_since"}}


def without_use(answer: Mapping[str, Any]) -> Recorded:
    """Counted use has no history, except that it used up a quota."""
    return {**answer, "used": None, "remaining": None if answer["remaining"] else answer["remaining"]}


async def test_what_was_answered_at_an_instant_is_answered_again_for_it(entitlements: Entitlements) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    clock = entitlements.service.clock
    life = Life(entitlements, chance)
    await publish(entitlements, life.features())
    await entitlements.enroll(cap=6)
    answers: dict[str, Recorded] = {}
    for _ in range(STEPS):
        for _ in range(chance.randrange(1, 6)):
            await life.change()
        await eventually(lambda: settled(entitlements))
        answers[text(clock.now())] = await recorded(entitlements)
        clock.move(clock.now() + timedelta(hours=chance.randrange(1, 150)))
        await eventually(lambda: settled(entitlements))
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
