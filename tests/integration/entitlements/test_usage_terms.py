"""How use counts: in the months of the agency's time zone, and under the terms of grants and seats' trials."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts.entitlements import QuotaExceeded, QuotaThresholdCrossed
from muster_entitlements.domain.catalog import packaged_catalog
from muster_entitlements.repository import usage
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish, rolled_out
from tests.integration.entitlements.test_seat_trials import CANVAS, activate
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_trials import pass_time
from tests.integration.entitlements.test_usage import BEN, LATER, report, used
from tests.support.eventually import eventually

SECOND = timedelta(seconds=1)

# For each agency, when a month and the next one begin there: one is east of UTC, in the other the clocks go back.
MONTHS = {
    "NASA": ("Pacific/Guam", datetime(2025, 10, 31, 14, tzinfo=UTC), datetime(2025, 11, 30, 14, tzinfo=UTC)),
    "NSF": ("America/Los_Angeles", datetime(2025, 11, 1, 7, tzinfo=UTC), datetime(2025, 12, 1, 8, tzinfo=UTC)),
}


async def consume(entitlements: Entitlements, subject: str) -> dict[str, Any]:
    reply = await entitlements.post("usage/consume", {"subject": subject, "feature": "deep-research"})
    found: dict[str, Any] = reply.json()
    return found


async def test_months_are_those_of_the_agencys_time_zone(entitlements: Entitlements) -> None:
    service = entitlements.service
    agencies = {agency_id: replace(entitlements, agency=agency_id) for agency_id in MONTHS}
    people = {}
    for agency_id, agency in agencies.items():
        await service.publish(agency.enrolled(cap=2).model_copy(update={"time_zone": MONTHS[agency_id][0]}))
        await eventually(lambda agency=agency: _is_open(agency))
        people[agency_id] = (await agency.assign("ada")).json()["subject_ref"]

    steps = sorted(
        (at, agency_id, count, resets_at)
        for agency_id, (_, month, next_) in MONTHS.items()
        for at, count, resets_at in ((month - SECOND, 1, month), (month, 1, next_), (next_ - SECOND, 2, next_))
    )
    for at, agency_id, count, resets_at in steps:
        service.clock.move(at)
        body = await consume(agencies[agency_id], people[agency_id])
        assert (body["used"], datetime.fromisoformat(body["resets_at"])) == (count, resets_at)
        answer = await agencies[agency_id].check("ada")
        assert (answer["used"], answer["remaining"], answer["resets_at"]) == (count, 25 - count, body["resets_at"])

    service.clock.move(max(next_ for _, _, next_ in MONTHS.values()))
    for agency_id, (_, month, next_) in MONTHS.items():
        instants = (month - SECOND, month, next_ - SECOND, next_)
        events = [used(number, BEN, at, agency_id=agency_id) for number, at in enumerate(instants)]
        refused = (await report(entitlements, *events)).json()["refused"]
        assert [(each["index"], each["field"]) for each in refused] == [(0, "time")]  # that month is closed
        rows = await service.admin.fetch(
            "select starts_at, used from usage_sum where agency_id = $1 and subject_ref = '' order by starts_at",
            agency_id,
        )
        assert [row["used"] for row in rows] == [1, 4, 1]
        assert [row["starts_at"] for row in rows[1:]] == [month, next_]


async def _is_open(agency: Entitlements) -> bool:
    return (await agency.get("pool")).status_code == 200


async def test_what_a_grant_or_the_trial_of_a_seat_gives_counts_against_no_quota(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=3)
    ada, ben = [(await entitlements.assign(person)).json()["subject_ref"] for person in ("ada", "ben")]
    service.clock.move(LATER)
    body = {"feature": "deep-research", "subject": ada, "reason": "pilot"}
    grant = (await entitlements.post("grants", body)).json()
    service.clock.move(LATER + 60 * SECOND)
    await report(entitlements, used(1, ada, LATER + SECOND, 40), used(2, ben, LATER + SECOND, 20))
    assert (await consume(entitlements, ada))["limit"] is None
    revoked_at = LATER + 120 * SECOND
    service.clock.move(revoked_at)
    assert (await entitlements.post(f"grants/{grant['grant_id']}/revocation", {"reason": "over"})).status_code == 200
    service.clock.move(LATER + 180 * SECOND)
    # Late use counts under the grant as it was then.
    await report(entitlements, used(3, ada, revoked_at - SECOND, 30), used(4, ada, revoked_at, 5))
    body = await consume(entitlements, ada)
    assert (body["used"], body["limit"], body["remaining"]) == (77, 25, 19)
    rows = await service.admin.fetch("select subject_ref, used, granted, excess from usage_sum")
    assert {row["subject_ref"]: tuple(row)[1:] for row in rows} == {
        ada: (77, 71, 0),
        ben: (20, 0, 0),
        "": (97, 71, 0),
    }
    agencys = await entitlements.post("grants", {"feature": "deep-research", "mode": "quota", "reason": "pilot"})
    assert agencys.status_code == 201
    await report(entitlements, used(5, ben, LATER + 180 * SECOND, 6))

    async def exceeded() -> bool:
        found = [each.data for each in await service.published(QuotaExceeded)]
        return [(each.subject_ref, each.used, each.excess) for each in found] == [(ben, 26, 1)]

    await eventually(exceeded)

    # Each seat has a trial of its own, and the quota after it.
    canvas = {**CANVAS, "mode_after": "quota", "monthly_quota_after": 3}
    await publish(entitlements, [canvas], "now")
    await eventually(lambda: _has_window(entitlements, "canvas"))
    ada_began = await service.admin.fetchval("select trial_began_at from seat where subject_ref = $1", ada)
    assert ada_began is not None
    end = ada_began + timedelta(days=30)
    service.clock.move(end + SECOND)
    events = [used(6, ada, end - SECOND, 9), used(7, ada, end, 2)]
    for event in events:
        event["data"]["feature"] = "canvas"
    assert (await report(entitlements, *events)).json()["counted"] == 2
    use = {"subject": ada, "feature": "canvas", "amount": 2}
    refused = await entitlements.post("usage/consume", use)
    assert (refused.status_code, refused.json()["remaining"]) == (409, 1)


async def test_what_a_grant_of_a_quota_limits_counts_against_no_quota_of_the_agency(entitlements: Entitlements) -> None:
    notes = FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota"}
    await publish(entitlements, [notes | {"quota": {"limit": 8}}], "new-agencies")
    await entitlements.enroll(cap=2)
    ada, ben = [(await entitlements.assign(person)).json()["subject_ref"] for person in ("ada", "ben")]
    body = {"feature": "notes", "mode": "quota", "subject": ada, "reason": "pilot"}
    assert (await entitlements.post("grants", body)).status_code == 201
    await publish(entitlements, [notes | {"quota": {"limit": 10, "per": "agency"}}])
    await eventually(lambda: rolled_out(entitlements, 3))
    now = entitlements.service.clock.now()
    assert (await report(entitlements, used(1, ada, now, 4, feature="notes"))).json()["counted"] == 1
    adas, bens, more = [{"subject": who, "feature": "notes", "amount": n} for who, n in ((ada, 3), (ben, 10), (ben, 1))]
    statuses = [(await entitlements.post("usage/consume", use)).status_code for use in (adas, bens, more)]
    assert statuses == [200, 200, 409]
    rows = await entitlements.service.admin.fetch("select subject_ref, used, granted from usage_sum")
    assert {row["subject_ref"]: (row["used"], row["granted"]) for row in rows} == {
        ada: (7, 0),
        ben: (10, 0),
        "": (17, 7),
    }
    async with following(entitlements) as client:
        for person, who, verdict in (("ada", ada, "allowed"), ("ben", ben, "refused")):
            http = await entitlements.check(person, "notes")
            assert client.check(who, "notes").verdict == http["verdict"] == verdict


async def _has_window(entitlements: Entitlements, feature: str) -> bool:
    items = (await entitlements.get("windows")).json()["items"]
    return any(window["feature"] == feature for window in items)


async def test_late_use_after_a_seats_trial_counts_against_the_quota_even_once_the_seat_is_gone(
    entitlements: Entitlements,
) -> None:
    canvas = {**CANVAS, "mode_after": "quota", "monthly_quota_after": 3}
    await publish(entitlements, [canvas], "new-agencies")
    await entitlements.enroll(cap=5)
    seats = {person: await activate(entitlements, person, START) for person in ("ada", "bob")}
    rows = await entitlements.service.admin.fetch("select split_part(email, '@', 1) as name, subject_ref from seat")
    refs = {row["name"].removeprefix("person."): row["subject_ref"] for row in rows}
    at = START + timedelta(days=40)
    await pass_time(entitlements, at + timedelta(days=1))
    assert (await entitlements.post(f"{seats['bob']}/revocation", {})).status_code == 200
    await report(
        entitlements, *(used(number, who, at, 10, feature="canvas") for number, who in enumerate(refs.values()))
    )
    query = "select used, granted, excess from usage_sum where subject_ref <> ''"
    assert [tuple(row) for row in await entitlements.service.admin.fetch(query)] == [(10, 0, 7)] * 2


async def test_what_follows_a_version_reads_no_other_one(entitlements: Entitlements) -> None:
    for name in ("Two", "Three", "Four"):
        await publish(entitlements, [FRONTIER | {"name": name}])
    found = await usage.find_versions(entitlements.service.admin, {1, 3, None}, packaged_catalog())
    assert {number: version.features["frontier-models"].name for number, version in found.items()} == {
        1: packaged_catalog().features["frontier-models"].name,
        3: "Three",
    }


async def test_use_after_a_granted_quota_is_charged_after_the_use_within_it_even_in_one_batch(
    entitlements: Entitlements,
) -> None:
    """Ada's grant limits her within the unlimited trial until day 4. All 50 uses are of one period."""
    service, day = entitlements.service, timedelta(days=1)
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    to_ada = {"feature": "deep-research", "subject": ada, "reason": "pilot"}
    quota = {"mode": "quota", "ends_at": (START + 4 * day).isoformat()}
    assert (await entitlements.post("grants", to_ada | quota)).status_code == 201
    assert (await entitlements.post("quota-grants", to_ada | {"amount": 20})).status_code == 201
    service.clock.move(START + 6 * day)
    events = [used(1, ada, START + 5 * day, 30), used(2, ada, START + 2 * day, 20)]
    assert (await report(entitlements, *events)).json()["counted"] == 2
    rows = await service.admin.fetch("select used, granted, excess, told from usage_sum where subject_ref <> ''")
    assert [tuple(row) for row in rows] == [(50, 0, 0, 80)]
    assert await service.admin.fetchval("select spent from quota_grant") == 0

    async def crossed() -> bool:
        found = [each.data for each in await service.published(QuotaThresholdCrossed)]
        return [(each.threshold_percent, each.charged) for each in found] == [(50, 20), (80, 20)]

    await eventually(crossed)
