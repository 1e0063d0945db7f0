"""Grants: a feature for an agency or one person decides a check before the window, from its start to its end."""

from datetime import timedelta
from typing import Any

from muster_contracts.entitlements import EntitlementGranted, EntitlementRevoked
from muster_entitlements.domain.grants import MOST_STANDING
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_rollouts import SKETCHES
from tests.integration.entitlements.test_snapshots import following
from tests.integration.entitlements.test_trials import enroll_again, withdraw
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

DAY = timedelta(days=1)
TRIAL_END = START + 60 * DAY


async def grant(entitlements: Entitlements, expected: int = 201, **body: Any) -> dict[str, Any]:
    reply = await entitlements.post("grants", {"feature": "deep-research", "reason": "pilot", **body})
    assert reply.status_code == expected, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_grants_of_a_person_and_of_the_agency_decide_before_the_window(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    await entitlements.assign("bob")
    service.clock.move(TRIAL_END)
    revision = (await entitlements.check("ada"))["revision"]
    agencys = await grant(entitlements, starts_at="2025-10-08T00:00:00Z", ends_at="2025-10-20T00:00:00Z")
    adas = await grant(entitlements, subject="person.ada@nasa.gov", mode="quota", ends_at="2025-10-10T00:00:00Z")
    assert (agencys["state"], adas["state"], adas["monthly_quota"]) == ("scheduled", "active", 25)

    async def answers(person: str) -> tuple[str, str, str]:
        answer = await entitlements.check(person)
        assert answer["revision"] > revision
        pairs = {"pairs": [{"subject": f"person.{person}@nasa.gov", "feature": "deep-research"}]}
        assert (await entitlements.post("checks", pairs)).json()["answers"] == [answer]
        return answer["verdict"], answer["reason"], answer["valid_until"]

    assert await answers("ada") == ("allowed", "quota", "2025-10-08T00:00:00Z")
    assert await answers("bob") == ("allowed", "quota", "2025-10-08T00:00:00Z")  # the window's
    service.clock.move(TRIAL_END + 4 * DAY)
    assert await answers("ada") == ("allowed", "quota", "2025-10-10T00:00:00Z")
    assert await answers("bob") == ("allowed", "granted", "2025-10-20T00:00:00Z")
    service.clock.move(TRIAL_END + 5 * DAY)
    assert await answers("ada") == ("allowed", "granted", "2025-10-20T00:00:00Z")

    path = f"grants/{agencys['grant_id']}/revocation"
    revoked = await entitlements.post(path, {"reason": "over"})
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    assert (await entitlements.post(path, {"reason": "again"})).json() == revoked.json()
    assert await answers("bob") == ("allowed", "quota", "2026-08-06T00:00:00Z")
    ended = await entitlements.post(f"grants/{adas['grant_id']}/revocation", {"reason": "late"})
    assert (ended.status_code, ended.json()["type"].rsplit(":", 1)[-1]) == (409, "grant-ended")
    first = (await entitlements.get("grants", limit="1")).json()
    rest = (await entitlements.get("grants", limit="1", after=first["next"])).json()
    assert {each["grant_id"]: each["state"] for each in first["items"] + rest["items"]} == {
        agencys["grant_id"]: "revoked",
        adas["grant_id"]: "ended",
    }

    async def told() -> bool:
        granted = await service.published(EntitlementGranted)
        over = await service.published(EntitlementRevoked)
        return [(each.data.grant_id, each.data.subject_ref) for each in granted] == [
            (agencys["grant_id"], None),
            (adas["grant_id"], adas["subject_ref"]),
        ] and [(each.data.grant_id, each.data.reason) for each in over] == [(agencys["grant_id"], "over")]

    await eventually(told)


async def test_an_impossible_grant_is_refused_and_leaves_nothing(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    await grant(entitlements, starts_at="2025-09-01T00:00:00Z", ends_at="2025-10-01T00:00:00Z")
    await grant(entitlements, starts_at="2025-10-01T00:00:00Z")  # they meet, and do not overlap
    await grant(entitlements, subject="ada@nasa.gov")
    pool = await entitlements.pool()
    assert (await grant(entitlements, 409, starts_at="2025-09-30T00:00:00Z"))["type"].endswith("grant-overlaps")
    assert (await grant(entitlements, 404, feature="deep-reserch"))["nearest"] == ["deep-research"]
    for body, named in (
        ({"starts_at": "2025-08-05T00:00:00Z"}, "starts_at"),
        ({"starts_at": "2025-08-08T00:00:00Z", "ends_at": "2025-08-08T00:00:00Z"}, "ends_at"),
        ({"starts_at": "2025-08-08T00:00:00"}, "starts_at"),
        ({"feature": "frontier-models", "mode": "quota"}, "mode"),
        ({"subject": "ada@example.com"}, "subject"),
        ({"reason": " x "}, "reason"),
        ({"reason": "for ada.example@nasa.gov"}, "must not contain @"),
        ({"reason": "for ada.example\uff20nasa.gov"}, "must not contain @"),
    ):
        assert named in str(await grant(entitlements, 422, **body))
    assert (await entitlements.get("grants/grt_" + "0" * 32)).status_code == 404
    assert (await entitlements.pool(), len((await entitlements.get("grants")).json()["items"])) == (pool, 3)
    others = Entitlements(entitlements.service, "GSA")
    assert (await others.get("grants")).json()["items"] == []


async def test_the_number_of_grants_of_a_feature_that_are_not_over_is_limited(entitlements: Entitlements) -> None:
    """Each check reads them all."""
    await entitlements.enroll(cap=1)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    day = [(START + number * DAY).isoformat() for number in range(MOST_STANDING + 2)]
    for to in ({"subject": ada}, {}):
        granted = [
            await grant(entitlements, starts_at=day[number], ends_at=day[number + 1], **to)
            for number in range(MOST_STANDING)
        ]
        span = {"starts_at": day[MOST_STANDING], "ends_at": day[MOST_STANDING + 1]} | to
        full = await grant(entitlements, 409, **span)
        assert (full["type"].rsplit(":", 1)[-1], full["most"]) == ("grants-full", MOST_STANDING)
        assert full["detail"].startswith("feature: 'deep-research' must have fewer than 50 grants to ")
        await grant(entitlements, 201, **span, feature="frontier-models")
        revoked = await entitlements.post(f"grants/{granted[0]['grant_id']}/revocation", {"reason": "over"})
        assert revoked.status_code == 200
        await grant(entitlements, **span)


async def test_a_grant_lasts_beyond_an_enrollment_and_has_no_effect_until_the_next(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    early = await grant(entitlements, feature="frontier-models")
    await withdraw(entitlements, "enr_1", START + DAY)
    late = await grant(entitlements)
    features = {each["feature"]: each for each in (early, late)}
    assert [each["state"] for each in (await entitlements.get("grants")).json()["items"]] == ["active", "active"]
    for feature in features:
        assert (await entitlements.check("ada", feature))["reason"] == "withdrawn"
    await enroll_again(entitlements, 2, START + DAY)
    await entitlements.assign("ada")
    for feature, each in features.items():
        assert (await entitlements.check("ada", feature))["reason"] == "granted"
        await entitlements.post(f"grants/{each['grant_id']}/revocation", {"reason": "over"})
        assert (await entitlements.check("ada", feature))["reason"] == "window_open"


async def test_what_is_granted_can_be_consumed_even_once_no_catalog_has_it(entitlements: Entitlements) -> None:
    await publish(entitlements, [FRONTIER, SKETCHES], "new-agencies")
    await entitlements.enroll(cap=2)
    await grant(entitlements, feature="sketches")
    await publish(entitlements, [FRONTIER], "new-agencies")
    service = entitlements.service
    await service.publish(entitlements.withdrawn())
    await eventually(lambda: service.admin.fetchval("select withdrawn_at is not null from pool"))
    await entitlements.enroll(2, "enr_2")
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    assert (await entitlements.check("ada", "sketches"))["reason"] == "granted"
    reply = await entitlements.post("usage/consume", {"subject": ada, "feature": "sketches"})
    assert (reply.status_code, reply.json()["used"]) == (200, 1)
    assert [each["used"] for each in (await entitlements.get("usage", feature="sketches")).json()["items"]] == [1, 1]


async def test_the_quota_of_a_grant_counts_the_same_everywhere_once_no_version_has_the_feature(
    entitlements: Entitlements,
) -> None:
    soft = NOTES | {"quota": NOTES["quota"] | {"hard": False}}  # the grant's quota is hard even so
    await publish(entitlements, [FRONTIER, soft], "new-agencies")
    await entitlements.enroll(cap=1)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await grant(entitlements, feature="notes", mode="quota", subject=ada)
    await publish(entitlements, [FRONTIER], "new-agencies")
    await withdraw(entitlements, "enr_1", START + DAY)
    await enroll_again(entitlements, 2, START + DAY)
    await entitlements.assign("ada")
    use = {"subject": ada, "feature": "notes", "amount": 6}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    reported = await report(entitlements, used(1, ada, START + DAY, 4, feature="notes"))
    assert (reported.json()["counted"], reported.json()["refused"]) == (1, [])
    answer = await entitlements.check("ada", "notes")
    assert (answer["reason"], answer["limit"], answer["used"], answer["remaining"]) == ("quota_used_up", 10, 10, 0)
    explained = (await entitlements.get("checks/explanation", subject=ada, feature="notes")).json()
    assert (explained["answer"], explained["quota"]["limit"]) == (answer, 10)
    past = {"subject": ada, "feature": "notes", "at": "2025-08-07T00:00:00Z"}
    assert (await entitlements.get("checks", **past)).json()["limit"] == 10
    async with following(entitlements) as client:

        async def agrees() -> bool:
            return client.check(ada, "notes").reason == "quota_used_up"

        await eventually(agrees)
