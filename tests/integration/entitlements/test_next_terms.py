"""Versions that come with a next term: the newest one waiting comes at the end of the term the first waited for."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from muster_contracts.entitlements import (
    AgencyAccess,
    FeatureAccessChanged,
    FeatureWindowExtended,
    FeatureWindowOpened,
)
from muster_entitlements.handlers import rollouts, seat_trials
from muster_entitlements.repository import catalogs
from muster_entitlements.repository.catalogs import Adoption
from tests.integration.entitlements.conftest import END, NEXT_END, START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out, windows
from tests.integration.entitlements.test_seat_trials import CANVAS, activate, ends, text
from tests.integration.entitlements.test_trials import enroll_again, pass_time, withdraw
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually

DAY = timedelta(days=1)

TRIAL: dict[str, Any] = FRONTIER | {"trial_days": 30}


async def renew(entitlements: Entitlements) -> None:
    await entitlements.service.publish(entitlements.term(), entitlements.renewal("accepted"))

    async def renewed() -> bool:
        return bool((await entitlements.pool())["ends_at"] == text(NEXT_END))

    await eventually(renewed)


async def publish_next(entitlements: Entitlements, number: int, *features: dict[str, Any]) -> None:
    """Publish a version for the next term, and wait until the agency waits for it."""
    await publish(entitlements, list(features), "next-term")
    await eventually(partial(waits_for, entitlements, number))


async def waits_for(entitlements: Entitlements, number: int) -> bool:
    query = "select next_number from agency_catalog where agency_id = 'NASA'"
    return bool(await entitlements.service.admin.fetchval(query) == number)


@pytest.mark.parametrize("noted_by_earlier_code", [False, True])
async def test_a_later_version_does_not_delay_what_an_accepted_renewal_waits_for(
    entitlements: Entitlements, noted_by_earlier_code: bool
) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    await publish_next(entitlements, 2, TRIAL, RESEARCH)
    if noted_by_earlier_code:
        await entitlements.service.admin.execute("update agency_catalog set next_after = null")
    await renew(entitlements)  # which does not extend what becomes a trial
    await publish_next(entitlements, 3, TRIAL, RESEARCH | {"monthly_quota_after": 70})
    await pass_time(entitlements, END + DAY)
    assert await rolled_out(entitlements, 3)
    found = await windows(entitlements)
    assert (found["frontier-models"]["ends_at"], found["deep-research"]["monthly_quota_after"]) == (
        text(END + 30 * DAY),
        70,
    )
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(END + 30 * DAY)


async def test_a_feature_that_a_later_version_keeps_stays_open(entitlements: Entitlements) -> None:
    """No version that the agency ever has lacks it."""
    service = entitlements.service
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    await publish_next(entitlements, 2, RESEARCH)
    await renew(entitlements)
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(END)
    await publish_next(entitlements, 3, FRONTIER, RESEARCH)
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(NEXT_END)
    [extended] = [each.data for each in await published(entitlements, FeatureWindowExtended, 1)]
    assert (extended.feature, extended.previous_ends_at, extended.ends_at) == ("frontier-models", END, NEXT_END)
    revision = (await entitlements.pool())["revision"]

    async def copies_are_told() -> bool:
        return bool((await service.published(AgencyAccess))[-1].data.revision == revision)

    await eventually(copies_are_told)
    await pass_time(entitlements, END + DAY)
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(NEXT_END)


async def test_what_becomes_a_trial_at_once_is_one_with_the_next_term(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    await publish(entitlements, [TRIAL, RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 2))
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(END)
    # The earlier release leaves next_after as it was when it adopts a version that waited.
    await entitlements.service.admin.execute("update agency_catalog set next_number = null, next_after = $1", START)
    await pass_time(entitlements, END + DAY)
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where kind like 'catalog%'") == 0
    adopted = "select count(*) from audit where command = 'AdoptCatalog' and recorded_at >= $1"
    assert await entitlements.service.admin.fetchval(adopted, END) == 1
    answer = await entitlements.check("ada", "frontier-models")
    assert (answer["reason"], answer["valid_until"]) == ("window_open", text(END + 30 * DAY))
    await pass_time(entitlements, END + 31 * DAY)
    assert (await entitlements.check("ada", "frontier-models"))["reason"] == "window_closed"
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where kind like 'catalog%'") == 0


async def test_a_trial_follows_even_if_the_renewal_arrives_late(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    await publish(entitlements, [TRIAL, RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 2))
    await pass_time(entitlements, END + 5 * DAY)
    await renew(entitlements)

    async def follows() -> bool:
        found = (await windows(entitlements))["frontier-models"]
        return (found["starts_at"], found["ends_at"]) == (text(END), text(END + 30 * DAY))

    await eventually(follows)


async def test_a_trial_follows_even_if_the_feature_was_removed_and_the_renewal_is_already_accepted(
    entitlements: Entitlements,
) -> None:
    """A version for the next term that also arrives delays nothing."""
    await entitlements.enroll(cap=2)
    await publish(entitlements, [RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 2))
    await renew(entitlements)
    await publish(entitlements, [TRIAL, RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 3))
    await publish_next(entitlements, 4, TRIAL)
    await pass_time(entitlements, END + DAY)
    found = (await windows(entitlements))["frontier-models"]
    assert (found["starts_at"], found["ends_at"]) == (text(END), text(END + 30 * DAY))
    due_at = "select due_at from deadline where kind = 'catalog-next-term'"
    assert await entitlements.service.admin.fetchval(due_at) == NEXT_END


@pytest.mark.parametrize(("rule", "published"), [("now", 12), ("next-term", 12), ("now", -2)])
async def test_a_trial_of_a_version_that_arrives_while_the_renewal_is_late_has_its_full_length(
    entitlements: Entitlements, rule: str, published: int
) -> None:
    """Even though the version drops another feature, which a renewal does not extend."""
    new = TRIAL | {"key": "canvas", "trial_days": 10}
    await entitlements.enroll(cap=2)
    await pass_time(entitlements, END + 12 * DAY)
    if rule == "now":
        await publish(entitlements, [RESEARCH, new])
        await eventually(lambda: rolled_out(entitlements, 2))
    else:
        await publish_next(entitlements, 2, RESEARCH, new)
    assert "canvas" not in await windows(entitlements)
    await set_published(entitlements, END + published * DAY)  # before the term ended: the service was away meanwhile
    renewed_at = END + 20 * DAY
    await pass_time(entitlements, renewed_at)
    await renew(entitlements)

    async def opens() -> bool:
        found = (await windows(entitlements)).get("canvas", {})
        return (found.get("starts_at"), found.get("ends_at")) == (text(renewed_at), text(renewed_at + 10 * DAY))

    await eventually(opens)
    assert await rolled_out(entitlements, 2)
    assert (await windows(entitlements))["frontier-models"]["ends_at"] == text(END)


@pytest.mark.parametrize(("days", "by_earlier_release"), [(12, False), (5, True)])
async def test_what_becomes_a_trial_while_the_renewal_is_late_is_one_from_then_on(
    entitlements: Entitlements, days: int, by_earlier_release: bool
) -> None:
    """The renewal does not extend what was open for the term. The earlier release left its window as one to extend."""
    await entitlements.enroll(cap=2)
    await pass_time(entitlements, END + days * DAY)
    await publish(entitlements, [TRIAL, RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 2))
    if by_earlier_release:
        await entitlements.service.admin.execute("update feature_window set renewable = true")
    renewed_at = END + 20 * DAY
    await pass_time(entitlements, renewed_at)
    await renew(entitlements)
    *_, opened = await published(entitlements, FeatureWindowOpened, 4)
    window = opened.data.feature, opened.data.starts_at, opened.data.ends_at
    assert window == ("frontier-models", renewed_at, renewed_at + 30 * DAY)
    assert await entitlements.service.published(FeatureWindowExtended) == []


async def set_published(entitlements: Entitlements, at: datetime) -> None:
    await entitlements.service.admin.execute("update catalog_version set published_at = $1", at)


async def test_an_earlier_enrollments_next_term_brings_nothing_to_a_later_one(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=2)
    await publish_next(entitlements, 2, TRIAL, RESEARCH)
    again = END - 100 * DAY
    await withdraw(entitlements, "enr_1", again)
    await enroll_again(entitlements, 2, again)
    await publish_next(entitlements, 3, FRONTIER)
    due_at = "select due_at from deadline where kind = 'catalog-next-term'"
    assert await entitlements.service.admin.fetchval(due_at) == again + 365 * DAY


@pytest.mark.parametrize("mode", ["unlimited", "quota"])
async def test_what_opens_after_a_grace_ends_with_the_term_if_the_version_that_waits_lacks_it(
    entitlements: Entitlements, mode: str
) -> None:
    """So does what opens at once, which is the unlimited feature. A later version that has it extends it."""
    await publish(entitlements, [RESEARCH | {"trial_days": 10, "grace_days": 20}], "new-agencies")
    await entitlements.enroll(cap=1)
    await pass_time(entitlements, START + 12 * DAY)
    quota = {"mode": mode, "quota": {"limit": 25}} if mode == "quota" else {}
    opens = FRONTIER | {"key": "deep-research"} | quota
    await publish(entitlements, [opens, FRONTIER])
    await eventually(lambda: rolled_out(entitlements, 3))
    await publish_next(entitlements, 4, FRONTIER)
    await renew(entitlements)
    await pass_time(entitlements, START + 30 * DAY)
    found = await windows(entitlements)
    assert (found["deep-research"]["mode"], found["deep-research"]["ends_at"]) == (mode, text(END))
    assert found["frontier-models"]["ends_at"] == text(NEXT_END)
    await publish_next(entitlements, 5, FRONTIER, opens)
    assert (await windows(entitlements))["deep-research"]["ends_at"] == text(NEXT_END)


async def test_what_opens_after_a_grace_lasts_as_long_as_what_was_open_when_a_version_began_to_wait(
    entitlements: Entitlements,
) -> None:
    """A renewal that was accepted before had extended it: that version comes at the end of the renewed term."""
    await publish(entitlements, [RESEARCH | {"trial_days": 10, "grace_days": 20}, FRONTIER], "new-agencies")
    await entitlements.enroll(cap=1)
    await pass_time(entitlements, START + 12 * DAY)
    opens = FRONTIER | {"key": "deep-research", "mode": "quota", "quota": {"limit": 25}}
    open_ = FRONTIER | {"key": "canvas"}
    await publish(entitlements, [opens, TRIAL, open_])
    await eventually(lambda: rolled_out(entitlements, 3))
    await renew(entitlements)
    await publish_next(entitlements, 4, FRONTIER)
    await pass_time(entitlements, START + 30 * DAY)
    found = await windows(entitlements)
    assert (found["deep-research"]["mode"], found["deep-research"]["ends_at"]) == ("quota", text(NEXT_END))
    assert found["canvas"]["ends_at"] == text(NEXT_END)
    await pass_time(entitlements, END + DAY)
    found = await windows(entitlements)
    assert found["frontier-models"]["ends_at"] == text(END + 30 * DAY)  # by the current version
    assert found["deep-research"]["ends_at"] == text(NEXT_END)
    assert await waits_for(entitlements, 4)
    due_at = "select due_at from deadline where kind = 'catalog-next-term'"
    assert await entitlements.service.admin.fetchval(due_at) == NEXT_END


async def test_what_ends_with_the_term_is_told_before_the_next_version_takes_its_place(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a grace, and the ends of more seats' trials than one step handles."""
    monkeypatch.setattr(seat_trials, "STEP_SEATS", 2)
    await publish(entitlements, [RESEARCH | {"trial_days": 360, "grace_days": 5}, CANVAS], "new-agencies")
    await entitlements.enroll(cap=9)
    for person in range(5):
        await activate(entitlements, str(person), END - 30 * DAY)
    open_ = {"name": "Feature", "mode": "unlimited", "mode_after": "none"}
    await publish_next(entitlements, 3, {**open_, "key": "deep-research"}, {**open_, "key": "canvas", "trial_days": 5})
    await renew(entitlements)
    await pass_time(entitlements, END)
    assert await rolled_out(entitlements, 3)
    found = await ends(entitlements, 5)
    assert {at for _, at in found} == {END}
    [changed] = await published(entitlements, FeatureAccessChanged, 1)
    assert (changed.data.feature, changed.envelope.time) == ("deep-research", END)
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where parked_at is not null") == 0


async def test_a_version_at_once_replaces_what_waits_for_a_term_and_a_later_one_waits_for_the_next(
    front: Entitlements,
) -> None:
    """The rollout reaches the agency only after both are published."""
    write = partial(front.service.runtime.database.write, "NASA", context=CONTEXT)
    await front.enroll(cap=2)
    for rules, expected in (
        (["next-term"], Adoption(1, 2, END)),
        (["next-term", "now"], Adoption(4, None)),
        (["next-term"], Adoption(4, 5, END)),
        (["now", "next-term"], Adoption(6, 7, NEXT_END)),
    ):
        if expected.next_after == NEXT_END:
            await renew(front)
        for rule in rules:
            await publish(front, [FRONTIER], rule)
        async with write() as uow:
            assert await rollouts.roll_out(uow, "NASA")
        assert await catalogs.find_adoption(front.service.admin, "NASA") == expected
