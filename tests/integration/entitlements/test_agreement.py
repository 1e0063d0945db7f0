"""A copy agrees with the service whatever happens: random changes, use, grants, and versions of the catalog."""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import SubjectAccess
from muster_contracts.testing import Record
from muster_entitlements.handlers import quota_terms
from muster_entitlements_client import Answer, EntitlementsClient
from muster_local.servers import kafka_at
from muster_runtime.messaging.topic_log import TopicLog
from tests.contract.subscribers.test_javascript import in_javascript
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.random_life import FEATURES, NOTES, Life, text
from tests.integration.entitlements.test_catalog import publish, rolled_out
from tests.integration.entitlements.test_rollouts import SKETCHES
from tests.integration.entitlements.test_snapshots import COUNTED, following
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.eventually import eventually

STEPS = 4


async def differences(
    entitlements: Entitlements, client: EntitlementsClient, features: Sequence[str] = FEATURES
) -> list[Any]:
    """Where the client's answers differ from the service's, except for how it counts revisions and use."""
    rows = await entitlements.service.admin.fetch("select distinct subject_ref from seat")
    pairs = [(row["subject_ref"], feature) for row in rows for feature in features]
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
    service, life = entitlements.service, Life(entitlements, random.Random(seed))
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
                await eventually(agrees)
                rows = await service.admin.fetch("select distinct subject_ref from seat")
                pairs = [(row["subject_ref"], feature) for row in rows for feature in (None, *FEATURES)]
                await twin_agrees(entitlements, client, pairs)


async def twin_agrees(
    entitlements: Entitlements, client: EntitlementsClient, pairs: Sequence[tuple[str, str | None]]
) -> None:
    """Assert that the JavaScript twin answers as the client does about these pairs, without an agency and with it."""
    settings = entitlements.service.runtime.settings
    kafka, records = kafka_at(settings.kafka_bootstrap), list[Record]()
    async with TopicLog.open(kafka, settings.topic_prefix, [SubjectAccess.topic]) as log:
        async for batch in log.batches():
            records += [Record(each.topic, each.key or b"", list(each.headers), each.value) for each in batch]
    program = f"""
        const {{ AccessCopy }} = await import("./access.mjs");
        const copy = new AccessCopy();
        copy.expect([]);
        for (const record of records) copy.take(record);
        const checks = {json.dumps(pairs)}.flatMap((pair) => [null, "NASA"].map((agency) => [pair, agency]));
        const now = "{entitlements.service.clock.now().isoformat()}";
        const answers = checks.map(([pair, agency]) => copy.check(...pair, now, agency));
        const names = {json.dumps(Answer._fields)};
        console.log(JSON.stringify(answers.map((answer) => names.map((name) => answer[name]))));
    """
    answers = [client.check(*pair, agency_id=agency_id) for pair in pairs for agency_id in (None, "NASA")]
    expected = [[text(each) if isinstance(each, datetime) else each for each in answer] for answer in answers]
    assert await asyncio.to_thread(in_javascript, program, records) == expected


@pytest.mark.parametrize(
    ("after", "period", "expected"),
    [("quota", "month", [10, 10, 10]), ("none", "month", [10, 10, None]), ("quota", "anchor", [None, None, None])],
)
async def test_a_check_and_a_copy_say_the_monthly_quota_that_holds_within_a_trial_and_after_it(
    entitlements: Entitlements, after: str, period: str, expected: list[int | None]
) -> None:
    notes = NOTES | {"mode_after": after, "quota": {"limit": 10, "period": period}, "grace_days": 5}
    await publish(entitlements, [notes], "new-agencies")
    await entitlements.enroll(cap=1)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    async with following(entitlements) as client:

        async def agrees() -> bool:
            return await differences(entitlements, client, ["notes"]) == []

        for days, monthly in zip((0, 62, 70), expected, strict=True):
            entitlements.service.clock.move(START + days * DAY)
            await eventually(agrees)
            assert client.check(ada, "notes").monthly_quota == monthly


async def test_a_copy_learns_what_is_used_up_by_other_terms(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_terms, "STEP_PEOPLE", 1)
    service = entitlements.service
    people = ["ada", "bob"]

    async def adopt(notes: int, sketches: int, rule: str = "now") -> None:
        quotas = {"notes": {"limit": notes}, "sketches": {"limit": sketches, "per": "agency"}}
        features = [each | {"quota": quotas[each["key"]]} for each in (NOTES, SKETCHES)]
        number = (await publish(entitlements, features, rule, allow_below_use=True))["number"]
        if rule == "now":
            await eventually(lambda: rolled_out(entitlements, number))

    async def consume(person: str, feature: str, amount: int) -> None:
        body = {"subject": f"person.{person}@nasa.gov", "feature": feature, "amount": amount}
        assert (await entitlements.post("usage/consume", body)).status_code == 200

    async def grant(**more: str) -> str:
        body = {"feature": "notes", "mode": "quota", "reason": "pilot", "allow_below_use": True}
        reply = await entitlements.post("grants", body | more)
        assert reply.status_code == 201, reply.text
        return f"grants/{reply.json()['grant_id']}"

    async def change(path: str, **body: str) -> None:
        proposed = await send(
            entitlements, decision(entitlements, path, "notes", await windows(entitlements)), "ann", **body
        )
        approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
        assert approved.status_code == 200, approved.text

    await adopt(10, 10, "new-agencies")
    await entitlements.enroll(cap=2)
    subjects = [(await entitlements.assign(person)).json()["subject_ref"] for person in people]
    asked = [*((subject, "notes") for subject in subjects), (subjects[0], "sketches")]

    async with following(entitlements) as client:

        async def used_up(*expected: bool) -> None:
            """Wait until the client agrees on what is used up: both people's notes, and the sketches."""

            async def agrees() -> bool:
                found = [client.check(*pair).reason == "quota_used_up" for pair in asked]
                differing = await differences(entitlements, client, ["notes", "sketches"])
                assert (found, differing) == (list(expected), [])
                return True

            await eventually(agrees)
            await twin_agrees(entitlements, client, asked)

        await consume("ada", "notes", 4)
        await consume("bob", "notes", 3)
        await consume("ada", "sketches", 4)
        await used_up(False, False, False)
        await adopt(3, 4)
        await used_up(True, True, True)
        await adopt(4, 5)
        await used_up(True, False, False)
        await adopt(10, 10)
        await used_up(False, False, False)

        await adopt(3, 10, "next-term")  # which is what is granted
        await grant(starts_at=text(START + DAY), ends_at=text(START + 2 * DAY))
        own = await grant(subject="person.ada@nasa.gov")
        await used_up(True, False, False)
        await entitlements.post(f"{own}/revocation", {"reason": "over"})
        await used_up(False, False, False)
        service.clock.move(START + DAY)
        await used_up(True, True, False)
        service.clock.move(START + 2 * DAY)
        await used_up(False, False, False)

        # An extension continues in the same period; another start begins a new one.
        service.clock.move(datetime(2025, 10, 2, tzinfo=UTC))
        await consume("ada", "notes", 10)
        await used_up(True, False, False)
        await change("extension", ends_on="2025-11-20", reason="pilot")
        service.clock.move(datetime(2025, 10, 6, tzinfo=UTC))
        await used_up(True, False, False)
        assert (await entitlements.check("ada", "notes"))["resets_at"] == "2025-11-01T00:00:00Z"
        await change("start", starts_on="2025-10-04", reason="wrong date")
        await used_up(False, False, False)
