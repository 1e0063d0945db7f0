"""What quota grants pay for, whoever's use it is."""

from datetime import timedelta
from typing import Any

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_usage import report, used


def notes(**quota: Any) -> dict[str, Any]:
    return FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": quota}


async def test_a_shared_grant_is_spent_in_the_order_of_time(entitlements: Entitlements) -> None:
    await publish(entitlements, [notes(limit=1)], "new-agencies")
    await entitlements.enroll(cap=6)
    people = [(await entitlements.assign(number)).json()["subject_ref"] for number in range(6)]
    grant = await entitlements.post("quota-grants", {"feature": "notes", "amount": 3, "reason": "pilot"})
    assert grant.status_code == 201
    entitlements.service.clock.move(START + timedelta(days=1))
    events = [
        used(number, person, START + timedelta(hours=10 - number), amount=2, feature="notes")
        for number, person in enumerate(people)
    ]
    assert (await report(entitlements, *events)).json()["counted"] == 6
    rows = await entitlements.service.admin.fetch("select subject_ref, excess from usage_sum where subject_ref <> ''")
    excess = {row["subject_ref"]: row["excess"] for row in rows}
    assert [excess[person] for person in people] == [1, 1, 1, 0, 0, 0]
    assert await entitlements.service.admin.fetchval("select spent from quota_grant") == 3
