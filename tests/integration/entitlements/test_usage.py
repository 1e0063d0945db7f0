"""Reported use: counted once by source and ID, and a bad event alone is refused."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from muster_contracts.entitlements import AgencyQuotaThresholdCrossed, QuotaExceeded, QuotaScope, QuotaThresholdCrossed
from muster_entitlements.domain.catalog import Feature, Quota, packaged_catalog
from muster_entitlements.domain.usage import EVENT_TYPE
from muster_entitlements.repository.usage import keep_partitions
from tests.integration.entitlements.conftest import START, Entitlements
from tests.support.eventually import eventually

# After the trial of 60 days: its quota holds.
LATER = START + timedelta(days=63)
ADA, BEN = (f"sub_{digit * 32}" for digit in "ab")


def used(number: object, subject: str = ADA, at: datetime = LATER, amount: int = 1, **more: Any) -> dict[str, Any]:
    """An event that reports this use."""
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "/research",
        "type": EVENT_TYPE,
        "time": at.isoformat(),
        "data": {"agency_id": "NASA", "subject_ref": subject, "feature": "deep-research", "amount": amount, **more},
    }


async def report(entitlements: Entitlements, *events: Any) -> httpx.Response:
    return await entitlements.service.client.post(
        "/v1/usage", json=list(events), headers={"Content-Type": "application/cloudevents-batch+json"}
    )


async def sums(entitlements: Entitlements) -> dict[tuple[str, str], int]:
    """How much each subject used, by the day on which the period begins; the whole agency's under an empty name."""
    rows = await entitlements.service.admin.fetch("select subject_ref, starts_at, used from usage_sum")
    return {(row["subject_ref"], f"{row['starts_at']:%m-%d}"): row["used"] for row in rows}


def limited(monkeypatch: pytest.MonkeyPatch, **quota: Any) -> None:
    """Let the catalog have this quota after the trial of Deep Research."""
    features = packaged_catalog().features
    stated = features["deep-research"].model_dump() | {"monthly_quota_after": None, "quota": Quota(**quota)}
    monkeypatch.setitem(features, "deep-research", Feature(**stated))


async def test_each_event_counts_once_and_a_bad_one_is_named_while_the_others_count(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    entitlements.service.clock.move(LATER)
    trial = START + timedelta(days=59)
    good = [used(1), used(2, amount=3), used(3, BEN), used(4, at=trial), used(1)]
    bad = {
        "data.amount": used(5, amount=-1),
        "data.feature": used(6, feature="telepathy"),
        "data.agency_id": used(7, agency_id="NSF"),
        "id": used(1, amount=2),
        "event": "use",
    }
    late = [used(8, at=LATER + timedelta(hours=1)), used(9, at=START)]  # in the future; of a period that is closed
    reply = await report(entitlements, *good, *bad.values(), *late)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["counted"], body["repeated"]) == (4, 1)
    assert [(each["index"], each["field"]) for each in body["refused"]] == [
        *((5 + place, field) for place, field in enumerate(bad)),
        (10, "time"),
        (11, "time"),
    ]
    assert body["refused"][0] | {"rule": ""} == {
        "index": 5,
        "id": "5",
        "field": "data.amount",
        "value": "-1",
        "rule": "",
    }
    assert (body["refused"][3]["id"], body["refused"][3]["value"]) == ("1", "1")
    expected = {(ADA, "10-05"): 4, (BEN, "10-05"): 1, ("", "10-05"): 5, (ADA, "10-01"): 1, ("", "10-01"): 1}
    assert await sums(entitlements) == expected
    assert (await report(entitlements, *good)).json() == {"counted": 0, "repeated": 5, "refused": []}
    assert await sums(entitlements) == expected

    # JSON may hold half a surrogate pair, which no text in UTF-8 can carry.
    halves = [used("\ud800"), used("half", feature="\ud800"), used("whole", BEN)]
    reply = await entitlements.service.client.post(
        "/v1/usage", content=json.dumps(halves), headers={"Content-Type": "application/cloudevents-batch+json"}
    )
    assert reply.status_code == 200, reply.text
    shown = [(each["id"], each["value"]) for each in reply.json()["refused"]]
    assert (reply.json()["counted"], shown) == (1, [("\\ud800", "\\ud800"), ("half", "\\ud800")])

    # Nothing is stored for an agency that does not exist.
    locked = "select count(*) from agency_instant where agency_id = 'NSF'"
    assert await entitlements.service.admin.fetchval(locked) == 0
    assert (await entitlements.service.client.post("/v1/usage", json=[])).status_code == 415
    token = entitlements.service.token("entitlements:write", agency="NASA")
    reply = await entitlements.service.client.post("/v1/usage", json=[], headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 403


async def test_reported_use_is_use_of_the_seat(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    ada = (await entitlements.assign("ada")).json()
    service = entitlements.service
    service.clock.move(LATER)
    # Not while the agency is suspended: there must be no use then, so it begins no seat's trial.
    await service.admin.execute("update pool set suspended = true")
    assert (await report(entitlements, used(0, BEN), used(9, ada["subject_ref"]))).json()["counted"] == 2
    assert await service.admin.fetchval("select state from seat") == "assigned"
    await service.admin.execute("update pool set suspended = false")
    await report(entitlements, used(1, ada["subject_ref"], at=LATER - timedelta(days=1)))
    await report(entitlements, used(2, ada["subject_ref"]), used(3, ada["subject_ref"], at=LATER - timedelta(days=2)))
    row = await service.admin.fetchrow("select state, idle_since, activated_at from seat")
    assert row is not None
    assert (row["state"], row["idle_since"], row["activated_at"]) == ("active", LATER.date(), LATER)
    answer = await entitlements.check("ada")
    assert (answer["limit"], answer["used"], answer["remaining"]) == (25, 4, 21)


async def test_late_use_from_before_a_person_had_the_seat_is_not_use_of_it(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    for number, before in enumerate((timedelta(days=1), timedelta(seconds=1))):
        assert (await report(entitlements, used(number, ada, LATER - before))).json()["counted"] == 1
        row = await service.admin.fetchrow("select state, activated_at, trial_began_at from seat")
        assert row is not None
        assert tuple(row) == ("assigned", None, None)
    await report(entitlements, used(2, ada))
    assert await service.admin.fetchval("select state from seat") == "active"


async def test_use_above_the_quota_counts_and_thresholds_are_published_once(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=5)
    entitlements.service.clock.move(LATER)
    ben = (await entitlements.assign("ben")).json()
    limited(monkeypatch, limit=10)
    await report(entitlements, *(used(number) for number in range(9)))
    await report(entitlements, used(10, amount=5), used(11, ben["subject_ref"], amount=5))
    await report(entitlements, used(12, amount=5), used(14, ben["subject_ref"], amount=6))
    service = entitlements.service

    async def told() -> set[tuple[str, int, int, str | None]]:
        crossed = [each.data for each in await service.published(QuotaThresholdCrossed)]
        found = {(each.subject_ref, each.threshold_percent, each.used, each.seat_id) for each in crossed}
        assert len(found) == len(crossed)
        return found

    async def exceeded() -> list[tuple[str | None, int, int, bool, str | None]]:
        found = [each.data for each in await service.published(QuotaExceeded)]
        return [(each.subject_ref, each.used, each.excess, each.enforced, each.seat_id) for each in found]

    async def as_expected() -> bool:
        of_ada = {(ADA, percent, amount, None) for percent, amount in ((50, 9), (80, 9), (100, 14))}
        crossed = ((50, 5), (80, 11), (100, 11))
        of_ben = {(ben["subject_ref"], percent, amount, ben["seat_id"]) for percent, amount in crossed}
        return await told() == of_ada | of_ben and await exceeded() == [
            (ADA, 14, 4, True, None),
            (ben["subject_ref"], 11, 1, True, ben["seat_id"]),
        ]

    await eventually(as_expected)

    limited(monkeypatch, limit=30, per=QuotaScope.AGENCY, hard=False, thresholds=(100,))
    await report(entitlements, used(13, BEN, amount=20))
    await report(entitlements, used(15, BEN))
    await eventually(lambda: service.admin.fetchval("select not exists (select from outbox)"))

    async def agency_told() -> bool:
        crossed = [each.data for each in await service.published(AgencyQuotaThresholdCrossed)]
        return [(each.threshold_percent, each.used) for each in crossed] == [(100, 50)] and (await exceeded())[2:] == [
            (None, 50, 20, False, None)
        ]

    await eventually(agency_told)


async def test_use_that_comes_while_its_partition_is_made_waits_for_it(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)

    async def is_kept() -> bool:
        """Whether the worker has made the last partition that it is going to make."""
        return bool(await service.admin.fetchval("select to_regclass('usage_sum_20251201')"))

    async def is_held_up() -> bool:
        return bool(
            await service.admin.fetchval(
                """
                select count(*) from pg_stat_activity
                where
                    datname = current_database() and wait_event_type = 'Lock' and query like '%insert into usage_seen%'
                """
            )
        )

    await eventually(is_kept)
    late = LATER - timedelta(days=5)  # the worker has made no partition of that day
    async with service.runtime.database.connection() as connection, connection.transaction():
        await keep_partitions(connection, late.date())
        reporting = asyncio.create_task(report(entitlements, used(1, at=late)))
        await eventually(is_held_up)
    assert (await reporting).json()["counted"] == 1
    day = await service.admin.fetchval("select tableoid::regclass::text from usage_seen")
    assert day == f"usage_seen_{late:%Y%m%d}"


async def test_the_partitions_are_made_ahead_and_show_each_tenant_its_own_rows_alone(
    entitlements: Entitlements,
) -> None:
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)
    await report(entitlements, used(1))  # no partition covers that day yet, so the default one takes it

    async def partitions() -> dict[str, list[str]]:
        rows = await service.admin.fetch(
            """
            select parent.relname as parent, c.relname as name
            from pg_inherits
            join pg_class as c on c.oid = inhrelid
            join pg_class as parent on parent.oid = inhparent
            where c.relkind = 'r' and parent.relname in ('usage_seen', 'usage_sum')
            order by c.relname
            """
        )
        found: dict[str, list[str]] = {"usage_seen": [], "usage_sum": []}
        for row in rows:
            found[row["parent"]].append(row["name"].removeprefix(row["parent"]))
        return found

    async def keep(today: datetime) -> Mapping[str, list[str]]:
        async with service.runtime.database.connection() as connection:
            await keep_partitions(connection, today.date())
        return await partitions()

    found = await keep(LATER)
    days = [f"_{LATER + timedelta(days=ahead):%Y%m%d}" for ahead in range(-1, 4)]
    assert set(days) <= set(found["usage_seen"])
    assert {"_20250901", "_20251001", "_20251101", "_20251201"} <= set(found["usage_sum"])
    day = await service.admin.fetchval("select tableoid::regclass::text from usage_seen")
    assert day == f"usage_seen{days[1]}"  # it moved there
    assert (await report(entitlements, used(1), used(2))).json()["repeated"] == 1

    # A role with a right on a partition itself would bypass the policies of the whole table.
    granted = await service.admin.fetch(
        """
        select c.relname
        from pg_class as c
        cross join aclexplode(c.relacl) as granted
        where c.relispartition and c.relkind = 'r' and granted.grantee::regrole::text not like '%owner'
        """
    )
    assert granted == []
    for tenant, visible in (("NASA", 2), ("NSF", 0)):
        connection = await asyncpg.connect(service.access.api_dsn, server_settings={"search_path": "entitlements"})
        try:
            async with connection.transaction():
                await connection.execute("select set_config('muster.agency', $1, true)", tenant)
                assert await connection.fetchval("select count(*) from usage_sum") == visible
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.fetch(f"select * from {day}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.execute(
                            "insert into usage_sum values ('NASA', 'f', '', now(), now(), 1, 0, 0, 0)"
                        )
                for table in ("usage_parked", "usage_offset"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        async with connection.transaction():
                            await connection.fetch(f"select * from {table}")
        finally:
            await connection.close()

    found = await keep(LATER + timedelta(days=47))
    assert days[1] not in found["usage_seen"]
    assert "_20251001" in found["usage_sum"]
