"""The explanation of a check: everything that its answer follows from, each with the events behind it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from muster_contracts.entitlements import (
    EntitlementGranted,
    EntitlementRevoked,
    FeatureAccessChanged,
    FeatureCatalogPublished,
    FeatureWindowChanged,
    FeatureWindowExtended,
    FeatureWindowOpened,
    QuotaExceeded,
    QuotaGranted,
    QuotaThresholdCrossed,
    TrialExpired,
)
from muster_entitlements.domain import quotas
from muster_entitlements.repository import facts
from muster_runtime.database.connections import Connection
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY, published
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish
from tests.integration.entitlements.test_consumption import consume
from tests.integration.entitlements.test_trials import pass_time
from tests.integration.entitlements.test_usage import LATER, report, used
from tests.integration.entitlements.test_windows import CANVAS, decision, send, windows
from tests.support.eventually import eventually


async def explained(entitlements: Entitlements, feature: str, person: str = "person.1@nasa.gov") -> dict[str, Any]:
    reply = await entitlements.get("checks/explanation", subject=person, feature=feature)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    checked = await entitlements.get("checks", subject=person, feature=feature)
    assert found["answer"] == checked.json()
    return found


def ids(part: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in part["events"]]


async def event_ids(entitlements: Entitlements, cls: Any, feature: str, count: int) -> list[str]:
    """The IDs of a feature's events of a type; all features together have `count`."""
    return [event.envelope.id for event in await published(entitlements, cls, count) if event.data.feature == feature]


async def test_a_check_is_explained_with_the_events_behind_it(entitlements: Entitlements) -> None:
    service = entitlements.service
    assert (await explained(entitlements, "deep-research"))["enrollment"] is None
    enrolled, started = await service.publish(entitlements.enrolled(3), entitlements.term())

    async def there() -> bool:
        return bool(await service.admin.fetchval("select exists (select from pool) and exists (select from term)"))

    await eventually(there)
    seat = (await entitlements.assign(1)).json()
    service.clock.move(START + 10 * DAY)
    path = decision(entitlements, "extension", "deep-research", await windows(entitlements))
    proposed = await send(entitlements, path, "ann", ends_at="2025-10-07T00:00:00Z", reason="pilot")
    await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    service.clock.move(LATER)
    await entitlements.post("grants", {"feature": "deep-research", "subject": "person.1@nasa.gov", "reason": "pilot"})
    granted = await explained(entitlements, "deep-research")
    [grant] = granted["grants"]
    assert (granted["answer"]["reason"], grant["decides"], granted["quota"]) == ("granted", True, None)
    assert ids(grant) == await event_ids(entitlements, EntitlementGranted, "deep-research", 1)
    assert (await entitlements.post(f"grants/{grant['grant_id']}/revocation", {"reason": "over"})).status_code == 200

    for amount, priority in ((4, 1), (3, 0)):
        more = {"feature": "deep-research", "amount": amount, "priority": priority, "reason": "pilot"}
        assert (await entitlements.post("quota-grants", more)).status_code == 201
    assert (await consume(entitlements, 1, 27))[0] == 200
    found = await explained(entitlements, "deep-research")
    assert found["answer"] | {"revision": 0, "valid_until": None} == {
        "verdict": "allowed",
        "reason": "quota",
        "valid_until": None,
        "revision": 0,
        "monthly_quota": 25,
        "limit": 25,
        "used": 27,
        "remaining": 5,
        "resets_at": "2025-11-01T00:00:00Z",
    }
    quota = found["quota"]
    assert (quota["starts_at"], quota["used"], quota["granted"], quota["excess"]) == ("2025-10-07T00:00:00Z", 27, 2, 0)
    assert [(each["amount"], each["spent"]) for each in quota["grants"]] == [(3, 2), (4, 0)]
    of_four, of_three = await event_ids(entitlements, QuotaGranted, "deep-research", 2)
    assert [ids(each) for each in quota["grants"]] == [[of_three], [of_four]]
    assert ids(quota) == await event_ids(entitlements, QuotaThresholdCrossed, "deep-research", 3)
    assert ids(found["enrollment"]) == [enrolled.id]
    assert [(term["term_id"], ids(term)) for term in found["terms"]] == [("term_of_enr_1", [started.id])]
    window = found["window"]
    assert (window["access"], window["access_ends_at"], window["extended"]) == ("quota", "2025-10-07T00:00:00Z", True)
    opened = await event_ids(entitlements, FeatureWindowOpened, "deep-research", len(await windows(entitlements)))
    extended = await event_ids(entitlements, FeatureWindowExtended, "deep-research", 1)
    expired = ids(window)[2:]
    assert ids(window)[:2] == [*opened, *extended]
    assert [event["type"].split(".")[2] for event in window["events"]][2:] == ["TrialExpired"] * len(expired)
    assert (found["seat"]["seat_id"], found["seat"]["state"]) == (seat["seat_id"], "active")
    assert (found["catalog"]["number"], found["catalog"]["events"]) == (1, [])
    assert await event_ids(entitlements, EntitlementRevoked, "deep-research", 1) != []

    await publish(entitlements, [CANVAS], "now")

    async def adopted() -> bool:
        return "canvas" in await windows(entitlements)

    await eventually(adopted)
    canvas = await explained(entitlements, "canvas")
    [catalog] = await published(entitlements, FeatureCatalogPublished, 1)
    assert (canvas["catalog"]["number"], ids(canvas["catalog"])) == (2, [catalog.envelope.id])
    assert (canvas["catalog"]["feature"]["grace_days"], canvas["quota"]) == (5, None)

    for params, status in (
        ({"subject": "person.1@nasa.gov", "feature": "telepathy"}, 404),
        ({"subject": "person.1@nasa.gov"}, 422),
        ({"subject": "ada\0", "feature": "canvas"}, 400),
    ):
        assert (await entitlements.get("checks/explanation", **params)).status_code == status
    headers = {"Authorization": f"Bearer {service.token('entitlements:read', agency='NSF')}"}
    of_another = f"/v1/agencies/NASA/checks/explanation?subject={seat['subject_ref']}&feature=canvas"
    assert (await service.client.get(of_another, headers=headers)).status_code == 404
    nobody = await service.client.get(of_another.replace("NASA", "NSF"), headers=headers)
    assert (nobody.status_code, nobody.json()["answer"]["reason"], nobody.json()["window"]) == (200, "unknown", None)


async def test_the_end_of_a_trial_and_of_a_term_are_explained(entitlements: Entitlements) -> None:
    service = entitlements.service
    await publish(entitlements, [RESEARCH | {"grace_days": 5}], "new-agencies")
    await entitlements.enroll(cap=3)
    await entitlements.assign(1)
    await pass_time(entitlements, START + 10 * DAY)
    path = decision(entitlements, "end", "deep-research", await windows(entitlements))
    assert (await send(entitlements, path, "ann", reason="misuse")).status_code == 200
    await pass_time(entitlements, START + 15 * DAY)
    told = [
        (await published(entitlements, cls, 1))[0].envelope.id
        for cls in (FeatureWindowOpened, FeatureWindowChanged, TrialExpired, FeatureAccessChanged)
    ]
    of_term = await service.publish(
        entitlements.term(), entitlements.renewal("accepted"), entitlements.term_ended(renewed=True)
    )

    async def terms_are_explained() -> bool:
        terms = (await explained(entitlements, "deep-research"))["terms"]
        return [ids(term) for term in terms] == [[envelope.id for envelope in of_term]]

    await eventually(terms_are_explained)
    found = await explained(entitlements, "deep-research")
    assert (found["answer"]["reason"], sorted(ids(found["window"]))) == ("quota", sorted(told))
    await service.publish(entitlements.withdrawn(at=service.clock.now()))
    await entitlements.enroll(cap=3, enrollment_id="enr_2")
    assert (await explained(entitlements, "deep-research"))["terms"] == []  # those were of the earlier enrollment


async def test_grants_that_are_over_are_explained_while_what_they_paid_counts(entitlements: Entitlements) -> None:
    async def grant(path: str, **facts: Any) -> str:
        reply = await entitlements.post(path, {"feature": "deep-research", "reason": "pilot"} | facts)
        assert reply.status_code == 201, reply.text
        grant_id: str = reply.json()["grant_id"]
        return grant_id

    async def revoke(grant_id: str) -> None:
        reply = await entitlements.post(f"grants/{grant_id}/revocation", {"reason": "it is over"})
        assert reply.status_code == 200, reply.text

    def november(day: int) -> datetime:
        return datetime(2025, 11, day, tzinfo=UTC)

    person, until = "person.1@nasa.gov", {day: {"ends_at": november(day).isoformat()} for day in (1, 4, 10)}
    await entitlements.enroll(cap=3)
    await entitlements.assign(1)
    entitlements.service.clock.move(november(1) - DAY)  # nothing of an earlier period is listed
    await grant("grants", subject=person, **until[1])
    await grant("quota-grants", amount=5, **until[1])
    entitlements.service.clock.move(november(1))
    ended = await grant("grants", subject=person, **until[4])
    assert (await consume(entitlements, 1, 4))[0] == 200
    entitlements.service.clock.move(november(4))
    revoked = await grant("grants")
    assert (await consume(entitlements, 1, 2))[0] == 200
    entitlements.service.clock.move(november(5))
    await revoke(revoked)
    await revoke(await grant("grants", starts_at=november(20).isoformat()))  # it was never in force
    paid = await grant("quota-grants", amount=5, **until[10])
    assert (await consume(entitlements, 1, 27))[0] == 200

    entitlements.service.clock.move(november(12))
    found = await explained(entitlements, "deep-research")
    quota = found["quota"]
    assert (found["answer"]["reason"], quota["used"], quota["granted"], quota["excess"]) == ("quota_used_up", 33, 8, 0)
    assert [(each["grant_id"], each["spent"]) for each in quota["grants"]] == [(paid, 2)]
    listed = [(each["grant_id"], each["state"], each["decides"]) for each in found["grants"]]
    assert listed == [(ended, "ended", False), (revoked, "revoked", False)]
    assert [len(each["events"]) for each in found["grants"]] == [1, 2]

    entitlements.service.clock.move(november(30) + DAY)
    found = await explained(entitlements, "deep-research")
    assert (found["quota"]["granted"], found["quota"]["grants"], found["grants"]) == (0, [], [])


async def test_counted_use_is_explained_with_what_it_crossed_in_its_period(entitlements: Entitlements) -> None:
    soft = {"limit": 5, "hard": False, "thresholds": [80, 100]}
    notes = FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": soft}
    shared = notes | {"key": "shared", "quota": soft | {"per": "agency"}}
    await publish(entitlements, [notes, shared], "new-agencies")
    await entitlements.enroll(cap=3)
    _, other = [(await entitlements.assign(number)).json()["subject_ref"] for number in (1, 2)]
    for feature, amount in (("notes", 4), ("notes", 2), ("shared", 6)):
        use = {"subject": "person.1@nasa.gov", "feature": feature, "amount": amount}
        assert (await entitlements.post("usage/consume", use)).status_code == 200

    async def crossed(feature: str, person: int) -> list[str]:
        quota = (await explained(entitlements, feature, f"person.{person}@nasa.gov"))["quota"]
        return [event["type"].split(".")[2] for event in quota["events"]]

    of_person = [*["QuotaThresholdCrossed"] * 2, "QuotaExceeded"]
    of_agency = [*["AgencyQuotaThresholdCrossed"] * 2, "QuotaExceeded"]
    assert [await crossed("notes", 1), await crossed("notes", 2)] == [of_person, []]
    assert [await crossed("shared", 1), await crossed("shared", 2)] == [of_agency, of_agency]
    entitlements.service.clock.move(START + 28 * DAY)  # in September
    assert [await crossed("notes", 1), await crossed("shared", 1)] == [[], []]
    assert (await report(entitlements, used(1, other, START, amount=6, feature="notes"))).json()["counted"] == 1
    await published(entitlements, QuotaExceeded, 3)
    of_late_use = "select count(*) from quota_event where subject_ref = $1"
    assert await entitlements.service.admin.fetchval(of_late_use, other) == 0


async def test_a_quota_keeps_its_events_when_an_extended_trial_extends_its_period(entitlements: Entitlements) -> None:
    service, later = entitlements.service, START + 15 * DAY
    quota = {"limit": 5, "thresholds": [80]}
    notes = FRONTIER | {"key": "notes", "name": "Notes", "mode": "quota", "quota": quota, "trial_days": 14}
    await publish(entitlements, [notes], "new-agencies")
    await entitlements.enroll(cap=3)
    await entitlements.assign(1)
    use = {"subject": "person.1@nasa.gov", "feature": "notes", "amount": 4}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    path = decision(entitlements, "extension", "notes", await windows(entitlements))
    proposed = await send(entitlements, path, "ann", ends_on="2025-09-20", reason="pilot")
    assert (await send(entitlements, f"{proposed.headers['location']}/approval", "bob")).status_code == 200
    # This one is deleted at the later instant, and shows that the purge has run.
    await service.admin.execute(
        "insert into quota_event values ('EPA', 'notes', '', $1, $1, 'evt_1', '', $1)", later - quotas.KEPT_FOR
    )
    service.clock.move(later)

    async def purged() -> bool:
        return not await service.admin.fetchval("select exists (select from quota_event where agency_id = 'EPA')")

    await eventually(purged)
    found = (await explained(entitlements, "notes"))["quota"]
    assert (found["resets_at"], found["used"], len(found["events"])) == ("2025-09-01T00:00:00Z", 4, 1)


async def test_an_explanation_does_not_contradict_its_answer(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entitlements.enroll(cap=5)
    assert (await entitlements.assign(1)).status_code == 201
    list_events = facts.list_events

    async def after_a_change(connection: Connection, agency_id: str, subjects: Iterable[str]) -> Any:
        await entitlements.service.admin.execute("update seat set state = 'suspended'")
        return await list_events(connection, agency_id, subjects)

    monkeypatch.setattr(facts, "list_events", after_a_change)
    reply = await entitlements.get("checks/explanation", subject="person.1@nasa.gov", feature="deep-research")
    found = reply.json()
    assert (found["answer"]["reason"], found["seat"]["state"]) == ("window_open", "assigned")
