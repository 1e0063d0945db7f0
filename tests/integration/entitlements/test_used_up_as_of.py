"""The past of quotas: since when one was used up, and since when it was not."""

import itertools
from datetime import datetime
from typing import Any

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.random_life import address, get, text
from tests.integration.entitlements.test_as_of import Recorded, settled, without_use
from tests.integration.entitlements.test_catalog import FRONTIER, publish, rolled_out
from tests.integration.entitlements.test_quota_grants import notes
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

ADA, BOB = 0, 1
LIMIT = 10


async def test_a_quota_was_used_up_from_the_use_that_took_its_rest_until_more_was_there(
    entitlements: Entitlements,
) -> None:
    service, answers = entitlements.service, dict[str, list[Recorded]]()
    await publish(entitlements, [FRONTIER, notes(limit=LIMIT, thresholds=[])], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign(ADA)).json()["subject_ref"]
    await entitlements.assign(BOB)

    async def asked(**instants: str) -> list[Recorded]:
        people = [address(ADA), address(BOB)]
        found = [await get(entitlements, "checks", subject=each, feature="notes", **instants) for each in people]
        return [without_use(answer) for answer in found]

    async def day(number: int, expected: str, path: str = "", **body: Any) -> None:
        """Do something on a day after the start, and remember the answers."""
        service.clock.move(START + number * DAY)
        if path:
            reply = await entitlements.post(path, {"feature": "notes"} | body)
            assert reply.status_code in (200, 201), reply.text
        await remember(expected)

    async def remember(expected: str) -> None:
        await eventually(lambda: settled(entitlements))
        found = answers[text(service.clock.now())] = await asked()
        assert [answer["reason"] for answer in found] == [expected, "quota"]

    async def change(number: int, expected: str, limit: int, **quota: Any) -> None:
        """Change the quota on a day."""
        service.clock.move(START + number * DAY)
        changed = notes(limit=limit, thresholds=[], **quota)
        version = (await publish(entitlements, [FRONTIER, changed], allow_below_use=True))["number"]
        await eventually(lambda: rolled_out(entitlements, version))
        await remember(expected)

    async def kept() -> int:
        versions: int = await service.admin.fetchval("select count(*) from quota_use_history")
        return versions

    await day(1, "quota", "usage/consume", subject=ada, amount=LIMIT - 1)
    assert await kept() == 0
    await day(2, "quota_used_up", "usage/consume", subject=ada)
    assert await kept() == 1
    span = {"starts_at": text(START + 4 * DAY), "ends_at": text(START + 9 * DAY)}
    await day(3, "quota_used_up", "quota-grants", subject=ada, amount=2, reason="pilot", **span)
    await day(4, "quota")  # the grant begins, and nothing else happens
    await day(5, "quota_used_up", "usage/consume", subject=ada, amount=2)
    await day(6, "quota", "quota-grants", amount=1, reason="pilot")
    service.clock.move(START + 7 * DAY)
    assert (await report(entitlements, used(1, ada, service.clock.now(), feature="notes"))).json()["counted"] == 1
    await remember("quota_used_up")
    until = text(START + 9 * DAY)
    await day(8, "quota", "quota-grants", subject=ada, amount=1, reason="pilot", ends_at=until)
    await day(9, "quota_used_up")  # the grant ends unspent
    await change(10, "quota", LIMIT + 2)
    await change(11, "quota_used_up", LIMIT - 1)
    await change(12, "quota", LIMIT - 1, report_only=True)
    await change(13, "quota_used_up", LIMIT - 1)
    await day(27, "quota")  # of the next month
    assert await kept() == 1

    service.clock.move(START + 80 * DAY)

    async def forgotten() -> bool:
        return bool(await service.admin.fetchval("select count(*) from quota_use") == 0)

    await eventually(forgotten)
    for instant, answered in answers.items():
        assert await asked(at=instant, recorded_at=instant) == answered, instant
        assert [answer["reason"] for answer in await asked(at=instant)] == [each["reason"] for each in answered]
    [used_up, _] = answers[text(START + 2 * DAY)]
    assert (used_up["verdict"], used_up["limit"], used_up["remaining"]) == ("refused", LIMIT, 0)

    # What was known of an instant before it: neither later uses nor later grants.
    known = {(4, 2): "quota_used_up", (4, 3): "quota", (7, 6): "quota", (9, 1): "quota"}
    for (at, recorded_at), expected in known.items():
        [answer, _] = await asked(at=text(START + at * DAY), recorded_at=text(START + recorded_at * DAY))
        assert answer["reason"] == expected, (at, recorded_at)


async def test_the_quota_of_an_agency_was_used_up_for_all_its_people(entitlements: Entitlements) -> None:
    service = entitlements.service
    shared = notes(limit=3, per="agency", thresholds=[])
    await publish(entitlements, [FRONTIER, shared], "new-agencies")
    await entitlements.enroll(cap=2)
    for person in (ADA, BOB):
        await entitlements.assign(person)

    async def reasons(**instants: str) -> list[str]:
        body = {"pairs": [{"subject": address(person), "feature": "notes"} for person in (ADA, BOB)]}
        path = f"/v1/agencies/{entitlements.agency}/checks"
        reply = await service.client.post(path, json=body, params=instants)
        assert reply.status_code == 200, reply.text
        return [answer["reason"] for answer in reply.json()["answers"]]

    expected: dict[datetime, str] = {}
    for number, (person, amount) in enumerate([(ADA, 2), (BOB, 1)], start=1):
        service.clock.move(START + number * DAY)
        use = {"subject": address(person), "feature": "notes", "amount": amount}
        assert (await entitlements.post("usage/consume", use)).status_code == 200
        [reason] = set(await reasons())
        expected[service.clock.now()] = reason
    assert list(expected.values()) == ["quota", "quota_used_up"]
    service.clock.move(START + 3 * DAY)
    for at, reason in expected.items():
        assert await reasons(at=text(at)) == [reason] * 2


async def test_neither_use_nor_grants_of_another_feature_or_person_count(entitlements: Entitlements) -> None:
    service = entitlements.service
    two = [notes(limit=3, thresholds=[]) | {"key": key} for key in ("notes", "drafts")]
    await publish(entitlements, two, "new-agencies")
    await entitlements.enroll(cap=2)
    for person in (ADA, BOB):
        await entitlements.assign(person)
    drafts = {"subject": address(BOB), "feature": "drafts", "amount": 9, "reason": "pilot"}
    assert (await entitlements.post("quota-grants", drafts)).status_code == 201
    for person, feature in ((ADA, "drafts"), (BOB, "notes")):
        use = {"subject": address(person), "feature": feature, "amount": 3}
        assert (await entitlements.post("usage/consume", use)).status_code == 200

    async def used_up(**instants: str) -> list[tuple[int, str]]:
        found = []
        for person, feature in itertools.product((ADA, BOB), ("notes", "drafts")):
            answer = await get(entitlements, "checks", subject=address(person), feature=feature, **instants)
            if answer["reason"] == "quota_used_up":
                found.append((person, feature))
        return found

    expected = [(ADA, "drafts"), (BOB, "notes")]
    assert await used_up() == expected
    at = text(service.clock.now())
    service.clock.move(START + DAY)
    assert await used_up(at=at) == expected
