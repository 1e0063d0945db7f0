"""A version of the catalog announces nothing about trials again, and omits nothing that is still to be announced."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from muster_contracts.entitlements import (
    AgencyAccess,
    FeatureAccessChanged,
    SeatTrialExpired,
    TrialEndingSoon,
    TrialExpired,
)
from muster_entitlements.handlers import rollouts, seat_trials
from muster_entitlements.repository import catalogs
from muster_entitlements.repository.catalogs import Adoption
from muster_entitlements.subscriptions import DEADLINES
from muster_runtime.scheduling import deadlines, scheduler
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out, windows
from tests.integration.entitlements.test_next_terms import publish_next, renew, waits_for
from tests.integration.entitlements.test_seat_trials import CANVAS, activate_rest, text
from tests.integration.entitlements.test_trials import pass_time
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually

DAY = timedelta(days=1)

# A quota of the whole agency from the first day on.
SKETCHES: dict[str, Any] = FRONTIER | {
    "key": "sketches",
    "name": "Sketches",
    "mode": "quota",
    "quota": {"limit": 10, "per": "agency"},
}


async def test_nothing_is_told_again_of_a_trial_and_copies_are_told_of_another_quota(
    entitlements: Entitlements,
) -> None:
    service = entitlements.service
    trial = RESEARCH | {"trial_days": 60, "grace_days": 5}
    await publish(entitlements, [trial, SKETCHES], "new-agencies")
    await entitlements.enroll(cap=1)

    async def adopt(number: int, sketches: dict[str, Any] = SKETCHES, **changes: Any) -> None:
        await publish(entitlements, [trial | changes, sketches])
        await eventually(lambda: rolled_out(entitlements, number))
        await pass_time(entitlements, service.clock.now())  # whatever that has made due

    async def told(cls: type[Any]) -> list[Any]:
        return [event.data for event in await service.published(cls)]

    async def tells(cls: type[Any], expected: int) -> bool:
        return len(await told(cls)) == expected

    end = START + 60 * DAY
    await pass_time(entitlements, end - 14 * DAY)
    await adopt(3, ends_soon_days=[14, 10])  # within a day of the notice
    await pass_time(entitlements, end + DAY)
    await adopt(4, ends_soon_days=[1], grace_days=3)  # in the grace
    await pass_time(entitlements, end + 6 * DAY)
    await adopt(5, grace_days=30)
    await pass_time(entitlements, end + 40 * DAY)
    await eventually(partial(tells, FeatureAccessChanged, 1))
    [changed] = await told(FeatureAccessChanged)
    assert changed.changed_at == end + 5 * DAY
    assert [each.days_left for each in await told(TrialEndingSoon)] == [14, 10]
    assert len(await told(TrialExpired)) == 1

    revision = (await entitlements.pool())["revision"]
    await adopt(6, SKETCHES | {"quota": {"limit": 20, "per": "agency", "report_only": True}}, grace_days=30)
    assert (await entitlements.pool())["revision"] > revision

    async def is_told_of_the_quota() -> bool:
        terms = (await told(AgencyAccess))[-1].features[-1].quota
        return bool((terms.limit, terms.enforced, terms.per) == (20, False, "agency"))

    await eventually(is_told_of_the_quota)


async def test_a_version_waits_until_due_notices_of_trials_are_sent(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seat_trials, "STEP_SEATS", 7)
    service = front.service
    await publish(front, [CANVAS], "new-agencies")
    await front.enroll(cap=20)
    await front.assign_seats(20)
    await activate_rest(front)
    service.clock.move(START + 31 * DAY)
    write = partial(service.runtime.database.write, "NASA", context=CONTEXT)

    async def step() -> set[str]:
        async with write() as uow:
            due = await deadlines.due_first(uow.connection, "NASA", uow.now)
            ends = [each for each in await deadlines.take(uow, due) if each.kind == seat_trials.SEAT_TRIAL_ENDS]
            if ends:
                await seat_trials.on_seat_trial_ends_due(uow, ends)
        return {each.kind for each in due}

    while seat_trials.SEAT_TRIAL_ENDS not in await step():
        pass  # what is due before
    await publish(front, [CANVAS | {"ends_soon_days": [3]}])
    async with write() as uow:
        assert not await rollouts.roll_out(uow, "NASA")
    while await step():
        pass
    async with write() as uow:
        assert await rollouts.roll_out(uow, "NASA")
    assert await rolled_out(front, 2 + 1)
    seats = [SeatTrialExpired.model_validate_json(each).seat_id for each in await unsent(front, SeatTrialExpired)]
    assert (len(seats), len(set(seats))) == (20, 20)


async def test_the_end_of_a_trial_is_told_although_a_version_opens_its_feature(front: Entitlements) -> None:
    service = front.service
    await front.enroll(cap=2)
    service.clock.move(START + 60 * DAY)
    features = ["deep-research", "advanced-voice-mode"]
    await publish(front, [FRONTIER, *(FRONTIER | {"key": key} for key in features)])
    write = partial(service.runtime.database.write, "NASA", context=CONTEXT)
    async with write() as uow:
        assert not await rollouts.roll_out(uow, "NASA")
    while due := await deadlines.due_first(service.admin, "NASA", service.clock.now()):
        async with write() as uow:
            await scheduler.handle(uow, DEADLINES, await deadlines.take(uow, due), "entitlements")
    async with write() as uow:
        assert await rollouts.roll_out(uow, "NASA")
    ends = [TrialExpired.model_validate_json(each) for each in await unsent(front, TrialExpired)]
    assert sorted(each.feature for each in ends) == sorted(features)


@pytest.mark.parametrize("rule", ["now", "next-term"])
async def test_a_version_waits_for_the_parked_end_of_a_trial(entitlements: Entitlements, rule: str) -> None:
    service = entitlements.service
    await publish(entitlements, [RESEARCH | {"trial_days": 364}], "new-agencies")
    await entitlements.enroll(cap=2)
    await pass_time(entitlements, END - 2 * DAY)
    if rule == "next-term":
        await publish_next(entitlements, 3, FRONTIER | {"key": "deep-research"})
        await renew(entitlements)
    await park(entitlements, "trial-expired", END - 2 * DAY)
    service.clock.move(END)

    async def waits() -> bool:
        waiting = await deadlines.parked_deadlines(service.admin)
        return [each.kind for each in waiting] == ["catalog-next-term", "trial-expired"]

    if rule == "next-term":
        await eventually(waits)
    else:
        await publish(entitlements, [FRONTIER | {"key": "deep-research"}])
        async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
            assert not await rollouts.roll_out(uow, "NASA")
        assert await catalogs.list_waiting(service.admin) == ["NASA"]
        # It waits for an operator: a sandbox's clock does not.
        assert await catalogs.find_oldest_wait(service.admin, rollouts.WAITED_FOR) is None
        assert await catalogs.find_oldest_wait(service.admin, ()) is not None
    for kind in ("trial-expired", "catalog-next-term"):
        await retry_parked(entitlements, kind)
    await eventually(lambda: rolled_out(entitlements, 3))
    assert [each.data.feature for each in await published(entitlements, TrialExpired, 1)] == ["deep-research"]


async def test_what_a_version_opens_for_the_term_in_a_grace_follows_it_and_stays(entitlements: Entitlements) -> None:
    service = entitlements.service
    await publish(entitlements, [RESEARCH | {"trial_days": 10, "grace_days": 20}], "new-agencies")
    await entitlements.enroll(cap=1)
    await entitlements.assign("ada")
    await pass_time(entitlements, START + 12 * DAY)
    metered = FRONTIER | {"key": "deep-research", "mode": "quota", "quota": {"limit": 25}}
    await publish(entitlements, [metered])
    await eventually(lambda: rolled_out(entitlements, 3))
    grace_ends = START + 30 * DAY
    assert (await entitlements.check("ada", "deep-research"))["valid_until"] == text(grace_ends)
    await pass_time(entitlements, grace_ends)
    use = {"subject": "person.ada@nasa.gov", "feature": "deep-research", "amount": 20}
    assert (await entitlements.post("usage/consume", use)).status_code == 200
    await pass_time(entitlements, grace_ends + 5 * DAY)
    for number, features in ((4, [metered, FRONTIER]), (5, [FRONTIER])):
        await publish(entitlements, features)
        await eventually(lambda: rolled_out(entitlements, number))  # noqa: B023 - awaited within the turn
        found = (await windows(entitlements))["deep-research"]
        assert (found["starts_at"], found["ends_at"]) == (text(grace_ends), text(END))
        answer = await entitlements.check("ada", "deep-research")
        assert (answer["verdict"], answer["used"], answer["limit"]) == ("allowed", 20, 25)
    assert await service.admin.fetchval("select count(*) from deadline where kind = 'catalog-after-grace'") == 0


async def test_a_parked_version_of_a_term_is_replaced_by_a_corrected_one(entitlements: Entitlements) -> None:
    """Even though one that takes effect at once waits for it."""
    await entitlements.enroll(cap=1)
    await publish_next(entitlements, 2, FRONTIER)
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    await park(entitlements, "catalog-next-term", END - DAY)
    entitlements.service.clock.move(END)
    await publish(entitlements, [FRONTIER, RESEARCH])
    await publish_next(entitlements, 4, FRONTIER, RESEARCH)
    await retry_parked(entitlements, "catalog-next-term")
    await eventually(lambda: rolled_out(entitlements, 4))


async def test_a_version_waits_for_an_earlier_one_that_is_due_with_the_term(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=2)
    await publish_next(entitlements, 2, FRONTIER | {"trial_days": 30})
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    await park(entitlements, "catalog-next-term", END - DAY)
    service.clock.move(END)
    await publish(entitlements, [FRONTIER, RESEARCH])
    async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
        assert not await rollouts.roll_out(uow, "NASA")
    await retry_parked(entitlements, "catalog-next-term")
    await eventually(lambda: rolled_out(entitlements, 3))
    opened = (await windows(entitlements))["frontier-models"]
    assert (opened["starts_at"], opened["ends_at"]) == (text(END), text(NEXT_END))


async def test_a_version_for_the_next_term_hides_none_that_waits_for_a_trial_that_follows(
    entitlements: Entitlements,
) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=2)
    await publish(entitlements, [FRONTIER | {"trial_days": 30}])
    await eventually(lambda: rolled_out(entitlements, 2))
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    await park(entitlements, "catalog-next-term", END - DAY)
    service.clock.move(END)
    await publish(entitlements, [FRONTIER, RESEARCH])
    await publish(entitlements, [FRONTIER], "next-term")
    async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
        assert not await rollouts.roll_out(uow, "NASA")
    await retry_parked(entitlements, "catalog-next-term")
    await eventually(lambda: rolled_out(entitlements, 3))
    await eventually(partial(waits_for, entitlements, 4))


async def test_a_version_for_the_next_term_waits_for_the_one_of_the_term_that_has_begun(front: Entitlements) -> None:
    service = front.service
    await front.enroll(cap=2)
    write = partial(service.runtime.database.write, "NASA", context=CONTEXT)

    async def roll_out() -> bool:
        async with write() as uow:
            return await rollouts.roll_out(uow, "NASA")

    async def handle_what_is_due() -> None:
        while due := await deadlines.due_first(service.admin, "NASA", service.clock.now()):
            async with write() as uow:
                await scheduler.handle(uow, DEADLINES, await deadlines.take(uow, due), "entitlements")

    await publish(front, [FRONTIER], "next-term")
    assert await roll_out()
    await renew(front)
    service.clock.move(END - DAY)
    await handle_what_is_due()
    service.clock.move(END)
    await publish(front, [FRONTIER, RESEARCH], "next-term")
    assert not await roll_out()
    await handle_what_is_due()
    assert await roll_out()
    adoption = await catalogs.find_adoption(service.admin, "NASA")
    assert adoption == Adoption(2, 3, NEXT_END)
    due_at = "select due_at from deadline where kind = 'catalog-next-term'"
    assert await service.admin.fetchval(due_at) == NEXT_END


async def park(entitlements: Entitlements, kind: str, at: datetime) -> None:
    """Park the deadlines of a kind, as if handling them had failed at an instant."""
    await entitlements.service.admin.execute(
        "update deadline set parked_at = $1, reason = 'a defect' where kind = $2", at, kind
    )


async def retry_parked(entitlements: Entitlements, kind: str) -> None:
    """Have the parked deadlines of a kind handled."""
    client = entitlements.service.client
    for parked in (await client.get("/v1/parked-deadlines")).json()["items"]:
        if parked["kind"] == kind:
            named = {name: parked[name] for name in ("kind", "agency_id", "subject", "due_at")}
            assert not (await client.post("/v1/parked-deadlines/retry", json=named)).json()["parked"]


async def unsent(front: Entitlements, cls: type[Any]) -> list[Any]:
    """The payloads of a type that wait in the outbox: nothing relays them."""
    rows = await front.service.admin.fetch(
        "select payload from outbox cross join unnest(payloads) as payload where type = $1", cls.event_type
    )
    return [row["payload"] for row in rows]
