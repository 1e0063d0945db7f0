"""Whose use of quotas is read and published again when terms change: a person's own, or an agency's step by step."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_entitlements.handlers import quota_terms
from muster_entitlements.repository import quota_uses
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

PEOPLE = [f"sub_{number:032}" for number in range(8)]
STEP = 3

PERSON: dict[str, Any] = {"feature": "notes", "mode": "quota", "subject": PEOPLE[2], "reason": "pilot"}
EVERYONE: dict[str, Any] = {"feature": "notes", "mode": "quota", "reason": "pilot"}


async def use_up(entitlements: Entitlements, people: Sequence[str], feature: str = "notes") -> None:
    """Let people use up their quotas without publishing it; every other person of the agency used something."""
    await entitlements.service.admin.execute(
        """
        insert into usage_sum (agency_id, feature, subject_ref, starts_at, ends_at, used)
        select 'NASA', $1, subject_ref, $2, $3, case when subject_ref = any($4::text[]) then 10 else 1 end
        from unnest($5::text[]) as subject_ref
        """,
        feature,
        START,
        datetime(2025, 9, 1, tzinfo=UTC),
        people,
        PEOPLE,
    )


async def told(entitlements: Entitlements) -> list[str]:
    """The people for whom use was published, in the order of their references."""
    rows = await entitlements.service.admin.fetch("select subject_ref from quota_use order by subject_ref")
    return [row["subject_ref"] for row in rows]


async def test_a_persons_grant_reads_and_publishes_nobody_elses_use(entitlements: Entitlements) -> None:
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    await use_up(entitlements, PEOPLE)
    granted = await entitlements.post("grants", PERSON | {"ends_at": (START + timedelta(days=9)).isoformat()})
    assert granted.status_code == 201, granted.text
    assert await told(entitlements) == [PEOPLE[2]]
    await entitlements.service.admin.execute("update quota_use set charged = 9")
    path = f"grants/{granted.json()['grant_id']}/revocation"
    assert (await entitlements.post(path, {"reason": "over"})).status_code == 200
    assert await told(entitlements) == [PEOPLE[2]]
    assert await entitlements.service.admin.fetchval("select charged from quota_use") == 10


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The features and people whose use was examined, at most STEP people per transaction."""
    monkeypatch.setattr(quota_terms, "STEP_PEOPLE", STEP)
    examined: list[tuple[str, str]] = []
    list_untold = quota_uses.list_untold

    async def watched(*arguments: Any) -> Any:
        _, _, feature, _, people, _ = arguments
        assert len(people) <= STEP
        examined.extend((feature, subject_ref) for subject_ref in people)
        return await list_untold(*arguments)

    monkeypatch.setattr(quota_uses, "list_untold", watched)
    return examined


async def next_turn(entitlements: Entitlements) -> datetime | None:
    """When a grant of a quota next begins or ends, according to the deadline for it."""
    due_at: datetime | None = await entitlements.service.admin.fetchval(
        "select due_at from deadline where kind = 'quota-uses-told' and subject = 'next_turn'"
    )
    return due_at


async def test_the_start_and_the_end_of_peoples_grants_examine_and_publish_nobody_elses_use(
    entitlements: Entitlements, examined: list[tuple[str, str]]
) -> None:
    starts_at, revoked_end, ends_at = (START + timedelta(days=days) for days in (1, 2, 3))
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    for person, end in ((PEOPLE[2], ends_at), (PEOPLE[4], ends_at), (PEOPLE[6], revoked_end)):
        times = {"starts_at": starts_at.isoformat(), "ends_at": end.isoformat()}
        granted = await entitlements.post("grants", PERSON | times | {"subject": person})
        assert granted.status_code == 201, granted.text
    revocation = f"grants/{granted.json()['grant_id']}/revocation"
    await use_up(entitlements, PEOPLE)

    async def turned_until(instant: datetime | None) -> list[str]:
        """Let a turn pass; returns whose use was examined meanwhile."""
        examined.clear()
        turn = await next_turn(entitlements)
        assert turn is not None
        entitlements.service.clock.move(turn)

        async def is_over() -> bool:
            return await next_turn(entitlements) == instant

        await eventually(is_over)
        return [subject_ref for _, subject_ref in examined]

    assert await turned_until(revoked_end) == PEOPLE[2::2]
    assert await told(entitlements) == PEOPLE[2::2]
    assert (await entitlements.post(revocation, {"reason": "over"})).is_success
    assert await turned_until(ends_at) == []
    assert await turned_until(None) == PEOPLE[2:5:2]
    assert await told(entitlements) == PEOPLE[2::2]


@pytest.mark.parametrize("granted", [[EVERYONE], [PERSON | {"subject": each} for each in PEOPLE[: STEP + 1]]])
async def test_the_start_of_a_grant_to_everyone_or_of_many_at_once_publishes_everyones_use_step_by_step(
    entitlements: Entitlements, examined: list[tuple[str, str]], granted: list[dict[str, Any]]
) -> None:
    starts_at = START + timedelta(days=1)
    await publish(entitlements, [NOTES], "new-agencies")
    await entitlements.enroll(cap=2)
    for each in granted:
        assert (await entitlements.post("grants", each | {"starts_at": starts_at.isoformat()})).status_code == 201
    await use_up(entitlements, PEOPLE)
    examined.clear()
    entitlements.service.clock.move(starts_at)

    async def all_told() -> bool:
        return await told(entitlements) == PEOPLE

    await eventually(all_told)
    assert len(examined) > STEP


async def test_late_use_of_a_person_under_other_terms_publishes_nobody_elses_use(entitlements: Entitlements) -> None:
    await publish(entitlements, [FRONTIER, NOTES | {"trial_days": 60, "mode": "unlimited", "mode_after": "quota"}])
    await entitlements.enroll(cap=2)
    granted_at = START + timedelta(days=4)
    entitlements.service.clock.move(granted_at)
    assert (await entitlements.post("grants", EVERYONE)).status_code == 201
    await use_up(entitlements, PEOPLE)
    entitlements.service.clock.move(granted_at + timedelta(seconds=1))
    late = used(1, PEOPLE[2], granted_at - timedelta(days=1), feature="notes")
    assert (await report(entitlements, late)).json()["counted"] == 1

    async def published() -> list[str]:
        return await told(entitlements)

    assert await eventually(published) == [PEOPLE[2]]


async def test_a_change_for_the_whole_agency_examines_each_person_once_and_a_few_per_transaction(
    entitlements: Entitlements, examined: list[tuple[str, str]]
) -> None:
    await publish(entitlements, [NOTES, NOTES | {"key": "canvas"}], "new-agencies")
    await entitlements.enroll(cap=2)
    used_up = [PEOPLE[0], PEOPLE[1], PEOPLE[5], PEOPLE[7]]
    await use_up(entitlements, used_up)
    await use_up(entitlements, used_up, "canvas")
    assert (await entitlements.post("grants", EVERYONE)).status_code == 201
    # A change of a person's terms between two steps delays none of them.
    assert (await entitlements.post("grants", PERSON | {"ends_at": (START + timedelta(days=9)).isoformat()})).is_success

    async def all_told() -> bool:
        return await told(entitlements) == sorted(2 * used_up)

    await eventually(all_told)
    steps = await entitlements.service.admin.fetch("select count(*) from quota_use group by xmin::text")
    assert max(row[0] for row in steps) <= STEP
    walked = [each for each in examined if each[1] != PEOPLE[2]]
    assert set(walked) == {(key, person) for key in ("canvas", "notes") for person in PEOPLE if person != PEOPLE[2]}
    assert len(examined) <= 2 * len(PEOPLE) + 7 + 2  # a step begins with the last person of the step before it
