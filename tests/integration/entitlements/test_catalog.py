"""The feature catalog: drafted, planned, published, and rolled out to enrolled agencies, each once."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
from prometheus_client import REGISTRY

from muster_contracts.entitlements import (
    FeatureCatalogPublished,
    FeatureWindowChanged,
    FeatureWindowExtended,
    FeatureWindowOpened,
    TrialExpired,
)
from muster_entitlements.bootstrap import build
from muster_entitlements.handlers import rollouts
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.integration.entitlements.test_usage import report, used
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

DAY = timedelta(days=1)

FRONTIER: dict[str, Any] = {
    "key": "frontier-models",
    "name": "Frontier models",
    "mode": "unlimited",
    "mode_after": "none",
}
RESEARCH: dict[str, Any] = {
    "key": "deep-research",
    "name": "Deep Research",
    "mode": "unlimited",
    "trial_days": 90,
    "mode_after": "quota",
    "monthly_quota_after": 50,
}
CONTEXT_SIZE: dict[str, Any] = {
    "key": "context-size",
    "name": "Context size",
    "mode": "unlimited",
    "mode_after": "none",
    "value": 128_000,
}

# Deep Research is open for longer, with a higher quota afterward; Advanced Voice Mode is removed; context size is new.
SECOND = [FRONTIER, RESEARCH, CONTEXT_SIZE]


class Killed(Exception):
    """Ends a transaction before it is committed."""


async def ask(entitlements: Entitlements, method: str, path: str, **more: Any) -> httpx.Response:
    return await entitlements.service.client.request(method, f"/v1/catalog{path}", **more)


async def draft(entitlements: Entitlements, features: list[dict[str, Any]], rule: str = "now") -> dict[str, Any]:
    reply = await ask(entitlements, "PUT", "/draft", json={"rule": rule, "features": features})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def ask_to_publish(entitlements: Entitlements, revision: int, **body: Any) -> httpx.Response:
    headers = {"If-Match": f'"{revision}"'}
    return await ask(entitlements, "POST", "/draft/publication", headers=headers, json=body or None)


async def propose(entitlements: Entitlements, revision: int, **body: Any) -> str:
    """The path of the proposal to publish the draft."""
    reply = await ask_to_publish(entitlements, revision, **body)
    assert reply.status_code == 202, reply.text
    return reply.headers["location"]


async def approve(entitlements: Entitlements, proposal: str) -> httpx.Response:
    token = entitlements.service.token("entitlements:read", "entitlements:operate", subject="bob")
    return await entitlements.service.client.post(f"{proposal}/approval", headers={"Authorization": f"Bearer {token}"})


async def publish(
    entitlements: Entitlements, features: list[dict[str, Any]], rule: str = "now", **body: Any
) -> dict[str, Any]:
    revision = (await draft(entitlements, features, rule))["revision"]
    reply = await approve(entitlements, await propose(entitlements, revision, **body))
    assert reply.status_code == 200, reply.text
    version: dict[str, Any] = reply.json()
    return version


async def rolled_out(entitlements: Entitlements, number: int) -> bool:
    reply = await ask(entitlements, "GET", f"/versions/{number}")
    return bool(reply.json()["agencies_left"] == 0)


async def waiting_agencies(entitlements: Entitlements) -> float | None:
    """The metric, which a readiness check updates."""
    await entitlements.service.client.get("/health/ready")
    return REGISTRY.get_sample_value("muster_catalog_waiting_agencies", {"service": "entitlements"})


async def windows(entitlements: Entitlements) -> dict[str, Any]:
    return {window["feature"]: window for window in (await entitlements.get("windows")).json()["items"]}


async def test_a_version_is_planned_and_published_and_reaches_enrolled_agencies(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=3)
    await entitlements.assign("ada")
    service.clock.move(START + 10 * DAY)
    before = await windows(entitlements)
    assert (await ask(entitlements, "GET", "")).json()["number"] == 1

    planned = (await ask(entitlements, "POST", "/plan", json={"rule": "now", "features": SECOND})).json()
    effects = {each["feature"]: each for each in planned["features"]}
    assert (planned["number"], planned["agencies"], set(effects)) == (
        2,
        1,
        {"deep-research", "context-size", "advanced-voice-mode"},
    )
    research, voice = effects["deep-research"], effects["advanced-voice-mode"]
    assert (research["changed"], research["gaining"], research["gaining_seats"], research["losing"]) == (
        ["monthly_quota_after", "trial_days"],
        ["NASA"],
        1,
        [],
    )
    assert (voice["removed"], voice["gaining"], voice["losing"], voice["losing_seats"]) == (True, [], ["NASA"], 1)
    none = await ask(entitlements, "POST", "/plan", json={"rule": "new-agencies", "features": SECOND})
    assert [each["gaining"] + each["losing"] for each in none.json()["features"]] == [[], [], []]

    first = await draft(entitlements, SECOND)
    assert await draft(entitlements, SECOND) == first  # the same draft again changes nothing
    second = await draft(entitlements, [*SECOND, RESEARCH | {"key": "deeper-research"}])
    stale = await ask(entitlements, "POST", "/draft/publication", headers={"If-Match": f'"{first["revision"]}"'})
    assert (stale.status_code, second["number"], second["agencies_left"]) == (412, 2, None)
    assert await windows(entitlements) == before

    revision = (await entitlements.pool())["revision"]
    published = await publish(entitlements, SECOND)
    assert (published["number"], published["state"]) == (2, "published")
    assert (await ask(entitlements, "GET", "/draft")).status_code == 404
    await eventually(lambda: rolled_out(entitlements, 2))

    after = await windows(entitlements)
    assert after["frontier-models"] == before["frontier-models"] | {"catalog_number": 2}
    assert (after["deep-research"]["ends_at"], after["deep-research"]["monthly_quota_after"]) == (
        "2025-11-04T00:00:00Z",
        50,
    )
    assert (after["advanced-voice-mode"]["ends_at"], after["advanced-voice-mode"]["mode_after"]) == (
        before["advanced-voice-mode"]["ends_at"],
        "none",
    )
    assert after["context-size"]["starts_at"] == "2025-08-16T00:00:00Z"
    assert (await entitlements.check("ada", "context-size"))["reason"] == "window_open"
    assert (await entitlements.pool())["revision"] > revision
    voice_used = used(1, at=START + 10 * DAY, feature="advanced-voice-mode")  # its window is open to the end
    assert (await report(entitlements, voice_used)).json()["counted"] == 1

    async def told() -> bool:
        events: list[Any] = []
        for cls in (FeatureWindowOpened, FeatureWindowExtended, FeatureWindowChanged):
            events += await service.published(cls)
        since = [(event.data.__class__.__name__, event.data.feature) for event in events if event.envelope.time > START]
        return sorted(since) == [
            ("FeatureWindowChanged", "advanced-voice-mode"),
            ("FeatureWindowChanged", "deep-research"),
            ("FeatureWindowExtended", "deep-research"),
            ("FeatureWindowOpened", "context-size"),
        ]

    await eventually(told)
    [event] = await service.published(FeatureCatalogPublished)
    assert (event.data.agency_id, event.data.number, event.data.rule) == ("*", 2, "now")
    [record] = [each for each in await service.reader.records() if each.topic.endswith("entitlements.catalog")]
    assert record.key == b"features"
    assert event.data.features[1].quota is not None
    assert (event.data.features[1].quota.limit, event.data.features[2].value) == (50, 128_000)

    # The trials end when their windows now do.
    service.clock.move(START + 90 * DAY)

    async def expired() -> bool:
        events = await service.published(TrialExpired)
        return {(each.data.feature, each.data.expired_at) for each in events} == {
            ("advanced-voice-mode", START + 60 * DAY),
            ("deep-research", START + 90 * DAY),
        }

    await eventually(expired)
    # An agency that enrolls now has the new version, and the rollout does not wait for it.
    await replace(entitlements, agency="GSA").enroll(1, "enr_gsa")
    assert (await windows(replace(entitlements, agency="GSA"))).keys() == {each["key"] for each in SECOND}
    assert await rolled_out(entitlements, 2)
    numbers = await service.admin.fetch("select distinct feature, catalog_number from feature_window")
    assert {row["feature"] for row in numbers if row["catalog_number"] == 1} == {
        "advanced-voice-mode"
    }  # it was taken away


async def test_a_plan_takes_the_days_of_an_agency_in_its_time_zone(entitlements: Entitlements) -> None:
    enrolled = entitlements.enrolled(1)
    there = {"time_zone": "America/New_York", "starts_at": START + 10 * DAY}  # so its windows are still to begin
    await entitlements.service.publish(enrolled.model_copy(update=there))
    await eventually(lambda: windows(entitlements))
    assert (await windows(entitlements))["deep-research"]["ends_at"] == "2025-10-15T04:00:00Z"
    features = [FRONTIER, RESEARCH | {"trial_days": 60}]
    planned = (await ask(entitlements, "POST", "/plan", json={"rule": "now", "features": features})).json()
    effects = {each["feature"]: (each["gaining"], each["losing"]) for each in planned["features"]}
    assert effects["deep-research"] == (["NASA"], [])


async def test_a_version_for_new_agencies_reaches_no_other_and_one_for_the_next_term_waits(
    entitlements: Entitlements,
) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=1)
    await entitlements.assign("ada")
    await service.publish(entitlements.term())
    before = await windows(entitlements)
    assert (await publish(entitlements, [FRONTIER], "new-agencies"))["agencies_left"] == 0
    assert (await publish(entitlements, [FRONTIER | {"trial_days": 30}, RESEARCH], "next-term"))["agencies_left"] == 1

    async def waits() -> bool:
        waiting = await service.admin.fetchval("select next_number from agency_catalog where agency_id = 'NASA'")
        return bool(waiting == 3)

    await eventually(waits)
    assert await windows(entitlements) == before
    await service.publish(entitlements.renewal("accepted"))

    async def renewed() -> bool:
        return bool((await entitlements.pool())["ends_at"] == "2027-08-06T00:00:00Z")

    await eventually(renewed)
    # What no longer lasts a term is not extended into the next one.
    assert (await windows(entitlements))["frontier-models"]["ends_at"] == "2026-08-06T00:00:00Z"
    service.clock.move(END)
    await eventually(lambda: rolled_out(entitlements, 3))
    after = await windows(entitlements)
    assert (after["frontier-models"]["starts_at"], after["frontier-models"]["ends_at"]) == (
        "2026-08-06T00:00:00Z",
        "2026-09-05T00:00:00Z",
    )
    assert (after["deep-research"]["ends_at"], after["deep-research"]["monthly_quota_after"]) == (
        before["deep-research"]["ends_at"],
        50,
    )
    assert after["advanced-voice-mode"]["mode_after"] == "none"

    async def opened() -> bool:
        published = [event for event in await service.published(FeatureWindowOpened) if event.data.starts_at == END]
        assert [(event.data.feature, event.envelope.time) for event in published] == [("frontier-models", END)]
        return True

    await eventually(opened)
    assert await service.admin.fetchval("select count(*) from deadline where due_at > $1", NEXT_END) == 0


async def test_a_rollout_resumes_where_it_was_killed(front: Entitlements, run_service: ServiceRunner) -> None:
    agencies = [replace(front, agency=name) for name in ("DOE", "GSA", "NASA")]
    for agency in agencies:
        await agency.enroll(1, f"enr_{agency.agency}")
    assert (await publish(front, SECOND))["agencies_left"] == 3
    database = front.service.runtime.database
    async with database.write("DOE", context=CONTEXT) as uow:
        await rollouts.roll_out(uow, "DOE")
    with suppress(Killed):
        async with database.write("GSA", context=CONTEXT) as uow:
            await rollouts.roll_out(uow, "GSA")
            raise Killed
    assert not await rolled_out(front, 2)
    assert await waiting_agencies(front) == 2.0
    others = frozenset({Role.WORKER, Role.RELAY})
    await run_service(build, EntitlementsSettings, roles=others, beside=front.service)
    await eventually(lambda: rolled_out(front, 2))
    assert await waiting_agencies(front) == 0.0

    async def all_told() -> bool:
        changed = await front.service.published(FeatureWindowChanged)
        return sorted((each.data.agency_id, each.data.feature) for each in changed) == [
            (agency.agency, feature) for agency in agencies for feature in ("advanced-voice-mode", "deep-research")
        ]

    await eventually(all_told)
