"""Many checks in one request: other tasks run between them, and what people share is computed only once."""

from datetime import timedelta

import pytest

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.checks import Answer, Reason, Register, Verdict, check_all
from muster_entitlements.domain.grants import MOST_STANDING, Grant
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.queries.pairs import Pair, check_pairs
from muster_entitlements.replies import ChecksReply
from tests.support.turns import counted_turns
from tests.unit.entitlements.test_windows_and_checks import POOL, START

DAY = timedelta(days=1)
PEOPLE = [f"sub_{number:032x}" for number in range(5_000)]
SEATS = dict.fromkeys(PEOPLE, SeatState.ACTIVE)

# Each takes several times as many slices.
LEAST_TURNS = 5


def grant(number: int, subject_ref: str | None = None) -> Grant:
    return Grant(
        grant_id=f"grt_{number}",
        agency_id="NASA",
        feature="deep-research",
        subject_ref=subject_ref,
        mode=AccessMode.UNLIMITED,
        monthly_quota=None,
        starts_at=START + number * DAY,
        ends_at=START + (number + 1) * DAY,
        reason="",
    )


async def test_other_tasks_run_while_thousands_of_people_with_grants_are_checked() -> None:
    register = Register(POOL, {}, SEATS, [grant(number, person) for number in range(3) for person in PEOPLE])
    pairs = [Pair("NASA", person, "deep-research") for person in PEOPLE]
    async with counted_turns() as turns:
        checked = await check_pairs({"NASA": register}, pairs, START)
        assert turns() > LEAST_TURNS
    assert {answer.reason for _, answer in checked} == {Reason.GRANTED}
    assert all(question.grants[0].subject_ref == person for person, (question, _) in zip(PEOPLE, checked, strict=True))


async def test_other_tasks_run_while_different_answers_become_a_reply() -> None:
    answers = [Answer(Verdict.ALLOWED, Reason.QUOTA, None, 1, used=number // 2) for number in range(10_000)]
    async with counted_turns() as turns:
        reply = await ChecksReply.of(answers)
        assert turns() > LEAST_TURNS
    assert [each.used for each in reply.answers] == [number // 2 for number in range(10_000)]


def test_a_check_of_one_person_does_not_read_the_grants_of_all_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grant, "__hash__", None)
    register = Register(POOL, {}, SEATS, [grant(number) for number in range(MOST_STANDING)])
    begun = {PEOPLE[0]: START}
    shared = Register(POOL, {}, SEATS, register.grants, begun)
    found = list(check_all(shared, [(person, "deep-research") for person in PEOPLE], START))
    assert len({id(question) for question, _ in found}) == 2
    assert len({id(question.grants) for question, _ in found}) == 1
