"""Renewals that arrive after the term has ended: what was announced meanwhile stays so, and what follows comes once."""

from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import (
    FeatureAccessChanged,
    FeatureWindowExtended,
    SeatTrialsEndingSoon,
    TrialExpired,
)
from tests.integration.entitlements.conftest import END, NEXT_END, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out, windows
from tests.integration.entitlements.test_next_terms import publish_next, renew, set_published
from tests.integration.entitlements.test_rollouts import park
from tests.integration.entitlements.test_seat_trials import CANVAS, activate, ends, text
from tests.integration.entitlements.test_trials import pass_time
from tests.support.eventually import eventually

DAY = timedelta(days=1)

OPEN: dict[str, Any] = FRONTIER | {"key": "deep-research"}


async def test_a_version_that_was_published_by_a_clock_that_is_ahead_is_adopted_once(
    entitlements: Entitlements,
) -> None:
    """Until then, the handling of the renewal does not loop."""
    await entitlements.enroll(cap=2)
    await pass_time(entitlements, END + DAY)
    await publish(entitlements, [FRONTIER, RESEARCH])
    await eventually(lambda: rolled_out(entitlements, 2))
    ahead = END + 3 * DAY
    await set_published(entitlements, ahead)
    await renew(entitlements)
    due_at = "select due_at = $1 from deadline where kind = 'catalog-next-term'"
    await eventually(lambda: entitlements.service.admin.fetchval(due_at, ahead))
    await pass_time(entitlements, ahead)
    assert await entitlements.service.admin.fetchval("select count(*) from deadline where kind like 'catalog%'") == 0


async def test_what_is_told_of_seats_trials_while_the_renewal_is_late_is_not_told_again(
    entitlements: Entitlements,
) -> None:
    """The version of the term changes only when notices come."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    await publish_next(entitlements, 3, CANVAS | {"ends_soon_days": [7]})
    first = await activate(entitlements, "ada", END - 20 * DAY)
    second = await activate(entitlements, "bob", END - 3 * DAY)
    await pass_time(entitlements, END + 20 * DAY)
    assert await ends(entitlements, 1) == [(first[6:], END + 10 * DAY)]
    await renew(entitlements)
    await eventually(lambda: rolled_out(entitlements, 3))
    await pass_time(entitlements, END + 27 * DAY)
    assert await ends(entitlements, 2) == [(first[6:], END + 10 * DAY), (second[6:], END + 27 * DAY)]
    notices: list[Any] = await published(entitlements, SeatTrialsEndingSoon, 3)
    assert [(event.envelope.time - END, event.data.ending[0].days_left) for event in notices] == [
        (3 * DAY, 7),
        (9 * DAY, 1),
        (20 * DAY, 7),
    ]


async def test_a_parked_notice_of_seats_trials_is_told_once_a_late_version_comes(entitlements: Entitlements) -> None:
    """The version removes the notice's deadline."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    await publish_next(entitlements, 3, CANVAS | {"ends_soon_days": [7]})
    await activate(entitlements, "ada", END - 20 * DAY)
    await pass_time(entitlements, END + 2 * DAY)
    await park(entitlements, "seat-trials-ending-soon", END + 2 * DAY)
    entitlements.service.clock.move(END + 3 * DAY + timedelta(hours=5))
    await renew(entitlements)
    await eventually(lambda: rolled_out(entitlements, 3))
    [notice] = await published(entitlements, SeatTrialsEndingSoon, 1)
    assert (notice.envelope.time, notice.data.ending[0].days_left) == (END + 3 * DAY, 7)
    await pass_time(entitlements, END + 11 * DAY)
    assert len(await entitlements.service.published(SeatTrialsEndingSoon)) == 1


async def test_the_trials_that_a_late_version_makes_longer_end_again_at_their_new_ends(
    entitlements: Entitlements,
) -> None:
    """Even those whose ends were announced after the term had ended, but none that is also over under the version."""
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=5)
    await publish_next(entitlements, 3, CANVAS | {"trial_days": 60})
    over, went_on, late = [
        (await activate(entitlements, person, END - days * DAY))[6:]
        for person, days in (("ada", 70), ("bob", 35), ("cid", 20))
    ]
    await pass_time(entitlements, END + 20 * DAY)
    told = [(over, END - 40 * DAY), (went_on, END - 5 * DAY), (late, END + 10 * DAY)]
    assert await ends(entitlements, 3) == told
    await renew(entitlements)
    await eventually(lambda: rolled_out(entitlements, 3))
    await pass_time(entitlements, END + 60 * DAY)
    assert await ends(entitlements, 5) == [*told, (went_on, END + 25 * DAY), (late, END + 40 * DAY)]


@pytest.mark.parametrize(
    ("rule", "published_at", "renewed_at", "begins"),
    [("next-term", -40, -30, 0), ("next-term", 5, 20, 20), ("now", -40, -30, 0), ("now", 5, 20, 20)],
)
async def test_what_becomes_a_trial_of_each_seat_is_one_in_the_renewed_term(
    entitlements: Entitlements, rule: str, published_at: int, renewed_at: int, begins: int
) -> None:
    """Whether the renewal comes in time or late, it does not extend what was open for the term."""
    of_seats = FRONTIER | {"trial_days": 30, "anchor": "seat"}
    await entitlements.enroll(cap=2)
    await pass_time(entitlements, END + published_at * DAY)
    if rule == "now":
        await publish(entitlements, [of_seats, RESEARCH])
        await eventually(lambda: rolled_out(entitlements, 2))
    else:
        await publish_next(entitlements, 2, of_seats, RESEARCH)
    await pass_time(entitlements, END + renewed_at * DAY)
    await renew(entitlements)
    await pass_time(entitlements, END + 21 * DAY)
    assert await rolled_out(entitlements, 2)
    found = (await windows(entitlements))["frontier-models"]
    assert (found["starts_at"], found["ends_at"]) == (text(END + begins * DAY), text(NEXT_END))
    await activate(entitlements, "ada", END + 22 * DAY)
    assert (await entitlements.check("ada", "frontier-models"))["valid_until"] == text(END + 52 * DAY)
    assert await entitlements.service.published(FeatureWindowExtended) == []


@pytest.mark.parametrize(
    ("first", "second", "starts", "trial_ends", "graces"),
    [
        ({"trial_days": 370}, RESEARCH | {"trial_days": 400}, -365, 5, 0),
        ({"trial_days": 360, "grace_days": 10}, RESEARCH | {"trial_days": 360, "grace_days": 40}, -365, -5, 1),
        ({"trial_days": 370}, OPEN, 5, 5, 0),
        ({"trial_days": 370, "grace_days": 30}, OPEN | {"mode": "quota", "quota": {"limit": 5}}, 35, 5, 1),
    ],
    ids=["longer", "a longer grace", "open for the term", "open after the grace"],
)
async def test_a_trial_that_ended_while_the_renewal_was_late_stays_over(
    entitlements: Entitlements, first: dict[str, int], second: dict[str, Any], starts: int, trial_ends: int, graces: int
) -> None:
    """So does its grace: each end is published once, and what the version opens for the term follows it."""
    await publish(entitlements, [RESEARCH | first], "new-agencies")
    await entitlements.enroll(cap=2)
    await publish_next(entitlements, 3, second)
    await pass_time(entitlements, END + 20 * DAY)
    await renew(entitlements)
    await eventually(lambda: rolled_out(entitlements, 3))
    await pass_time(entitlements, END + 60 * DAY)
    found = (await windows(entitlements))["deep-research"]
    ends_at = NEXT_END if "trial_days" not in second else END + trial_ends * DAY
    assert (found["starts_at"], found["ends_at"]) == (text(END + starts * DAY), text(ends_at))
    sent = "select not exists (select from outbox)"
    await eventually(lambda: entitlements.service.admin.fetchval(sent))
    [expired] = await entitlements.service.published(TrialExpired)
    assert expired.envelope.time == END + trial_ends * DAY
    assert len(await entitlements.service.published(FeatureAccessChanged)) == graces
    assert await entitlements.service.published(FeatureWindowExtended) == []


async def test_a_trial_whose_end_nobody_was_told_of_goes_on_as_the_version_of_the_term_says(
    entitlements: Entitlements,
) -> None:
    """The service was down from before the term's end until after the trial's."""
    await publish(entitlements, [RESEARCH | {"trial_days": 370}], "new-agencies")
    await entitlements.enroll(cap=2)
    await publish_next(entitlements, 3, RESEARCH | {"trial_days": 400})
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    entitlements.service.clock.move(END + 20 * DAY)
    await eventually(lambda: rolled_out(entitlements, 3))
    await pass_time(entitlements, END + 60 * DAY)
    [expired] = await published(entitlements, TrialExpired, 1)
    assert expired.envelope.time == END + 35 * DAY


async def test_a_renewal_that_arrives_together_with_the_end_of_the_renewed_term_leaves_no_deadline(
    front: Entitlements,
) -> None:
    """Everything that billing has published about the enrollment is applied before the enrollment itself."""
    front.service.clock.move(NEXT_END + DAY)
    second = {"term_id": "term_2", "number": 2}
    await front.service.publish(
        front.term(),
        front.renewal("accepted"),
        front.term_ended(renewed=True),
        front.term().model_copy(update=second),
        front.term_ended().model_copy(update={"term_id": "term_2", "ended_at": NEXT_END}),
    )
    await eventually(lambda: front.service.admin.fetchval("select bool_or(ended) from term"))
    await front.enroll(cap=2)
    assert (await front.pool())["state"] == "ended"
    assert await front.service.admin.fetchval("select count(*) from deadline where kind like 'catalog%'") == 0
