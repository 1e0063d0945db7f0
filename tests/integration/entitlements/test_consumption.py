"""Consuming: a hard quota is never overshot by concurrent callers or by retries."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from muster_contracts.entitlements import QuotaExceeded, QuotaScope, SeatActivated
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_usage import LATER, limited
from tests.support.eventually import eventually

CALLERS = 200


async def consume(entitlements: Entitlements, person: int, amount: int = 1, key: str | None = None) -> tuple[int, Any]:
    body = {"subject": f"person.{person}@nasa.gov", "feature": "deep-research", "amount": amount}
    reply = await entitlements.post("usage/consume", body, key=key)
    return reply.status_code, reply.json()


@pytest.mark.parametrize("per", list(QuotaScope))
async def test_two_hundred_concurrent_callers_use_what_the_model_allows(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch, per: QuotaScope
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    people = range(3)
    await entitlements.enroll(cap=len(people))
    for person in people:
        await entitlements.assign(person)
    entitlements.service.clock.move(LATER)
    limit = chance.randrange(20, 60)
    limited(monkeypatch, limit=limit, per=per)
    calls = [(chance.choice(people), chance.randrange(1, 4), f"key-{number}") for number in range(CALLERS // 2)]
    retries = [*calls, *calls]  # each is sent twice, under one key
    chance.shuffle(retries)
    answers = await asyncio.gather(*(consume(entitlements, *call) for call in retries))

    took: dict[str, tuple[int, int]] = {}
    for (person, amount, key), (status, body) in zip(retries, answers, strict=True):
        assert status in {200, 409}, body
        if status == 200:
            assert took.setdefault(key, (person, amount)) == (person, amount)
        else:
            assert body["reason"] == "quota_used_up"
            assert 0 <= body["remaining"] < amount
    whose = {person: person if per is QuotaScope.SEAT else 0 for person in people}
    used = {group: sum(n for person, n in took.values() if whose[person] == group) for group in whose.values()}
    asked = {group: sum(n for person, n, _ in calls if whose[person] == group) for group in whose.values()}
    told: dict[int, int] = {}
    for (person, _, _), (status, body) in zip(retries, answers, strict=True):
        if status == 200:
            told[whose[person]] = max(told.get(whose[person], 0), body["used"])
    assert told == {group: number for group, number in used.items() if number}
    for group, number in used.items():
        assert number <= limit
        # A refusal leaves less than the largest amount.
        assert number == asked[group] or limit - number < 3
    rows = await entitlements.service.admin.fetch("select subject_ref, used, excess from usage_sum")
    assert {row["excess"] for row in rows} == {0}
    everyone = next(row["used"] for row in rows if row["subject_ref"] == "")
    assert everyone == sum(n for _, n in took.values()) == sum(row["used"] for row in rows if row["subject_ref"])


async def test_a_key_counts_once_over_midnight_and_for_one_request(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies are kept by day (UTC), and a request that got no answer is sent again on the next one."""
    await entitlements.enroll(cap=2)
    await entitlements.assign(1)
    limited(monkeypatch, limit=10)
    midnight = LATER + timedelta(days=1)
    entitlements.service.clock.move(midnight - timedelta(seconds=1))
    first = await consume(entitlements, 1, 3, "k")
    assert (first[0], first[1]["used"]) == (200, 3)
    entitlements.service.clock.move(midnight + timedelta(hours=23))
    assert await consume(entitlements, 1, 3, "k") == first
    body = {"subject": "person.1@nasa.gov", "feature": "deep-research", "amount": 3}
    assert (await entitlements.post("usage/consume", body, key="k")).headers["idempotency-replayed"] == "true"
    status, body = await consume(entitlements, 1, 4, "k")
    assert (status, body["type"]) == (422, "urn:muster:problem:idempotency-mismatch")
    assert (await entitlements.check(1))["used"] == 3


GRANT = """
insert into entitlement_grant (agency_id, grant_id, feature, mode, monthly_quota, starts_at, reason, granted_at)
select agency_id, 'gnt_1', 'deep-research', 'quota', 1, starts_at, 'pilot', starts_at from pool
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update pool set suspended = true", "suspended"),
        ("update feature_window set ends_at = starts_at, mode_after = 'none'", "window_closed"),
        ("update seat set state = 'revoked', revoked_at = assigned_at, email = null, name = null", "no_seat"),
        (GRANT, "quota_used_up"),
    ],
    ids=["suspension", "end of the window", "revocation", "grant of a quota"],
)
async def test_a_use_that_waits_for_a_change_is_refused_by_it(
    entitlements: Entitlements, change: str, reason: str
) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign(1)
    service = entitlements.service

    async def waits() -> bool:
        return bool(
            await service.admin.fetchval(
                """
                select count(*)
                from pg_stat_activity
                where datname = current_database() and wait_event = 'advisory' and query like '%lock_for_use%'
                """
            )
        )

    # A second connection: within a transaction, Postgres shows the same activity again and again.
    other = await asyncpg.connect(service.access.admin_dsn, server_settings={"search_path": "entitlements"})
    try:
        async with other.transaction():
            await other.execute("select lock_agencies('{NASA}')")
            using = asyncio.create_task(consume(entitlements, 1, 2))
            await eventually(waits)
            await other.execute(change)
    finally:
        await other.close()
    status, body = await using
    assert (status, body["reason"]) == (409, reason)
    assert await service.admin.fetchval("select count(*) from usage_sum") == 0


async def test_a_refusal_is_not_kept_under_its_key(entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign(1)
    entitlements.service.clock.move(LATER)
    limited(monkeypatch, limit=1)
    status, body = await consume(entitlements, 1, 2, "k")
    assert (status, body["title"], body["remaining"]) == (409, "Not enough of the quota is left", 1)
    assert body["detail"].startswith("amount: must be at most 1, what is left of the quota of 1 until 2025-11-01")
    more = {"feature": "deep-research", "amount": 1, "reason": "pilot"}
    assert (await entitlements.post("quota-grants", more)).status_code == 201
    status, body = await consume(entitlements, 1, 2, "k")
    assert (status, body.get("used"), body.get("remaining")) == (200, 2, 0)


async def test_soft_and_report_only_quotas_keep_counting_and_say_so(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign(1)
    status, body = await consume(entitlements, 1, 5)  # within the trial
    assert (status, body["used"], body["limit"], body["remaining"]) == (200, 5, None, None)
    assert body["resets_at"] == "2025-09-01T00:00:00Z"
    entitlements.service.clock.move(LATER)
    limited(monkeypatch, limit=3, hard=True, report_only=True)
    status, body = await consume(entitlements, 1, 3)
    assert (status, body["used"], body["remaining"], body["would_refuse"]) == (200, 3, 0, False)
    status, body = await consume(entitlements, 1)
    assert (status, body["used"], body["remaining"], body["would_refuse"]) == (200, 4, 0, True)
    limited(monkeypatch, limit=3, hard=False)
    status, body = await consume(entitlements, 1)
    assert (status, body["used"], body["would_refuse"]) == (200, 5, False)
    limited(monkeypatch, limit=3)
    status, body = await consume(entitlements, 1)
    assert (status, body["limit"], body["used"], body["remaining"]) == (409, 3, 5, 0)
    assert body["detail"] == "nothing is left of the quota of 3 until 2025-11-01T00:00:00Z"
    assert body["resets_at"] == "2025-11-01T00:00:00Z"
    entitlements.service.clock.move(START + timedelta(days=90))
    status, body = await consume(entitlements, 1)
    assert (status, body["used"], body["remaining"]) == (200, 1, 2)

    async def published() -> bool:
        exceeded = [each.data for each in await entitlements.service.published(QuotaExceeded)]
        activated = await entitlements.service.published(SeatActivated)
        return [(each.used, each.enforced) for each in exceeded] == [(4, False)] and len(activated) == 1

    await eventually(published)
    status, body = await consume(entitlements, 2)
    assert (status, body["feature"], body["reason"]) == (409, "deep-research", "no_seat")
    assert body["detail"] == "feature deep-research is not available: no_seat"
    for amount in (0, -1, 1.5, True, "1"):
        status, body = await consume(entitlements, 1, amount)  # type: ignore[arg-type]
        assert (status, body["errors"][0]["field"]) == (422, "amount")


async def test_a_higher_limit_leaves_what_is_not_used_yet(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use above a lower limit in a pilot, which did not enforce it, counts, too; copies learn the same."""
    await entitlements.enroll(cap=2)
    await entitlements.assign(1)
    entitlements.service.clock.move(LATER)
    limited(monkeypatch, limit=10, report_only=True)
    assert (await consume(entitlements, 1, 18))[0] == 200
    limited(monkeypatch, limit=20)
    answer = await entitlements.check(1)
    assert (answer["verdict"], answer["used"], answer["remaining"]) == ("allowed", 18, 2)
    status, body = await consume(entitlements, 1, 3)
    assert (status, body["remaining"]) == (409, 2)
    status, body = await consume(entitlements, 1)
    assert (status, body["remaining"]) == (200, (await entitlements.check(1))["remaining"]) == (200, 1)
    assert (await consume(entitlements, 1))[0] == 200
    charged = "select used, charged, quota from quota_use where subject_ref <> ''"
    assert tuple(await entitlements.service.admin.fetchrow(charged)) == (20, 20, 20)  # type: ignore[arg-type]
