"""Adoption: counted with the uses, whoever reports them, and forgotten with the seat; small numbers are not shown."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster_contracts.entitlements import AdoptionSummarized
from muster_entitlements.queries.adoption import EXPORT_LINES, Export, begin_export, export_days
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_trials import enroll_again, is_open, pass_time
from tests.integration.entitlements.test_usage import report, used
from tests.support.eventually import eventually

DAY = timedelta(days=1)
NOON = START + timedelta(hours=12)


async def adoption(entitlements: Entitlements) -> dict[str, Any]:
    reply = await entitlements.get("adoption")
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    found: dict[str, Any] = next(each for each in body["features"] if each["feature"] == "deep-research")
    return found | {"seats": body["seats"], "today": body["day"]}


async def counted(entitlements: Entitlements) -> list[tuple[Any, ...]]:
    rows = await entitlements.service.admin.fetch(
        "select day, active, active_7_days, active_28_days, first_uses, first_use_days from adoption_day order by day"
    )
    return [(f"{row['day']:%m-%d}", *list(row)[1:]) for row in rows if row["active"]]


async def test_people_are_counted_by_day_until_they_lose_their_seats(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=40)
    seats = [(await entitlements.assign(number)).json() for number in range(30)]
    people = [seat["subject_ref"] for seat in seats]
    service.clock.move(NOON + 2 * DAY)
    early = [used(f"a{number}", people[number], NOON + DAY) for number in range(12)]
    assert (await report(entitlements, *early, *early)).json()["counted"] == 12
    consumption = {"subject": people[0], "feature": "deep-research"}
    for person in (people[0], people[0], people[12]):
        reply = await entitlements.post("usage/consume", consumption | {"subject": person})
        assert reply.status_code == 200, reply.text
    # Late, and for a day that is already counted; people without a seat are active, but have no first use with one.
    late = [used("b1", people[0], NOON), used("b2", people[1], NOON + DAY), used("b3", f"sub_{'c' * 32}", NOON + DAY)]
    await report(entitlements, *late)
    assert await counted(entitlements) == [
        ("08-06", 1, 1, 1, 0, 0),
        ("08-07", 13, 13, 13, 12, 12),
        ("08-08", 2, 14, 14, 1, 2),
    ]
    found = await adoption(entitlements)
    assert (found["today"], found["seats"], found["never_used"]) == ("2025-08-08", 30, 17)
    assert (found["active"], found["active_7_days"], found["active_28_days"]) == (None, 14, 14)

    # Anyone who loses a seat, in whatever way, does not count as having used it.
    await entitlements.post(f"seats/{seats[0]['seat_id']}/revocation", {"reason": "left"})
    moved = {"email": "person.new@nasa.gov", "name": "New"}
    assert (await entitlements.post(f"seats/{seats[1]['seat_id']}/transfer", moved)).status_code == 200
    unused = await service.admin.fetchval("select people from adopter where feature = 'deep-research'")
    assert unused == 11
    found = await adoption(entitlements)
    assert (found["seats"], found["never_used"], found["active_7_days"]) == (29, 18, 14)

    page = (await entitlements.get("adoption/days", limit="2")).json()
    rest = (await entitlements.get("adoption/days", after=page["next"])).json()
    days = [each["day"] for each in page["items"] + rest["items"]]
    assert days == ["2025-08-06", "2025-08-07", "2025-08-08"]  # and no future day
    assert page["items"][1] == {
        "feature": "deep-research",
        "day": "2025-08-07",
        "active": 13,
        "active_7_days": 13,
        "active_28_days": 13,
        "first_uses": None,  # 12 of the 13 would show that one had used it before
        "days_to_first_use": None,
    }
    export = await entitlements.get("adoption/export")
    assert export.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(export.text)))
    assert [line["active"] for line in lines] == ["", "13", ""]
    for cursor in ("YQ", "YS8yMDI1"):
        assert (await entitlements.get("adoption/days", after=cursor)).status_code == 422
    reply = await service.client.get("/v1/agencies/NSF/adoption")
    assert reply.status_code == 404

    # One summary a day, as long as anybody was active.
    service.clock.move(START + 3 * DAY)

    async def summarized(days: int) -> list[AdoptionSummarized] | None:
        found = [each.data for each in await service.published(AdoptionSummarized)]
        return found if len(found) == days else None

    first: list[AdoptionSummarized] = await eventually(lambda: summarized(1))
    [research] = [each for each in first[0].features if each.feature == "deep-research"]
    assert (first[0].day, first[0].seats, research.active_7_days, research.never_used) == ("2025-08-08", 29, 14, 18)
    assert (research.active, research.first_uses) == (None, None)
    service.clock.move(START + 60 * DAY)
    last: list[AdoptionSummarized] = await eventually(lambda: summarized(28))
    assert [each.day for each in last][-1] == "2025-09-04"


async def test_numbers_that_show_how_few_people_have_no_use_are_nowhere_shown(entitlements: Entitlements) -> None:
    """15 of 20 people with a seat would show that five have never used it."""
    await entitlements.enroll(cap=20)
    await entitlements.assign_seats(20)
    await entitlements.service.admin.execute(
        """
        insert into adoption_day (agency_id, feature, day, active, active_7_days, active_28_days, first_uses)
        values ('NASA', 'deep-research', $1, 15, 15, 15, 15)
        """,
        START.date(),
    )
    found = await adoption(entitlements)
    [day] = (await entitlements.get("adoption/days")).json()["items"]
    [line] = csv.DictReader(io.StringIO((await entitlements.get("adoption/export")).text))
    for name in ("active", "active_7_days", "active_28_days", "first_uses"):
        assert (found[name], day[name], line[name]) == (None, None, ""), name


async def test_an_export_is_read_and_sent_in_parts(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=40)
    assert (await entitlements.get("adoption/export")).text == (
        "feature,day,active,active_7_days,active_28_days,first_uses,days_to_first_use\r\n"
    )
    for number in range(12):
        await entitlements.assign(number)
    features, days = 7, 300
    await service.admin.execute(
        """
        insert into adoption_day (agency_id, feature, day, active, first_uses, first_use_days)
        select 'NASA', 'feature-' || f, $1::date + d, case when d < 10 then d else 30 * d end, 12, 18
        from generate_series(1, $2::integer) as f (f)
        cross join generate_series(0, $3::integer - 1) as d (d)
        """,
        START.date(),
        features,
        days,
    )
    service.clock.move(START + (days - 1) * DAY)
    export = await entitlements.get("adoption/export")
    assert "content-length" not in export.headers  # it is not held in memory as a whole
    lines = list(csv.reader(io.StringIO(export.text)))[1:]
    assert lines == [
        [
            f"feature-{feature}",
            (START + day * DAY).date().isoformat(),
            "" if 0 < day < 10 else str(30 * day),
            "0",
            "0",
            "12",
            "1.5",
        ]
        for feature in range(1, features + 1)
        for day in range(days)
    ]
    assert (await service.client.get("/v1/agencies/NSF/adoption/export")).status_code == 404


@pytest.mark.parametrize("lines", [0, 1, 499, 500, 501, 1_000])
async def test_a_part_of_an_export_has_a_limited_number_of_lines(entitlements: Entitlements, lines: int) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=1)
    await service.admin.execute(
        """
        insert into adoption_day (agency_id, feature, day)
        select 'NASA', 'feature-' || f, $1
        from generate_series(1, $2::integer) as f (f)
        """,
        START.date(),
        lines,
    )
    export: Export | None = await begin_export(service.admin, "NASA", service.clock.now())
    parts = []
    while export is not None:
        part, export = await export_days(service.admin, export)
        parts.append(part.count("\n"))
    assert (sum(parts), max(parts) <= EXPORT_LINES) == (lines, True)


async def test_the_first_use_is_on_the_day_of_the_seat_or_later(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(NOON + 5 * DAY)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    adopters = "select sum(people) from adopter"
    await report(entitlements, used(1, ada, NOON + 4 * DAY))
    assert await service.admin.fetchval(adopters) is None
    service.clock.move(NOON + 7 * DAY)
    await report(entitlements, used(2, ada, NOON + 3 * DAY), used(3, ada, NOON + 6 * DAY), used(4, ada, NOON + 7 * DAY))
    assert await service.admin.fetchval(adopters) == 1
    first_uses = {day: (first, days) for day, *_, first, days in await counted(entitlements) if first}
    assert first_uses == {"08-12": (1, 1)}


@pytest.mark.parametrize("reported", ["before the seat", "after it"])
@pytest.mark.parametrize("then", ["reported", "consumed"])
async def test_use_on_the_day_of_the_seat_but_before_it_is_not_the_first_use(
    entitlements: Entitlements, reported: str, then: str
) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=20)
    for other in range(10, 20):
        await entitlements.assign(other)
    people = [(await entitlements.assign(number)).json() for number in range(10)]
    for person in people:  # whom the reporter knows from now on
        await entitlements.post(f"seats/{person['seat_id']}/revocation", {"reason": "left"})
    refs = [person["subject_ref"] for person in people]
    early = [used(f"a{number}", ref, NOON + DAY) for number, ref in enumerate(refs)]
    service.clock.move(NOON + DAY)
    if reported == "before the seat":
        await report(entitlements, *early)
    service.clock.move(NOON + DAY + timedelta(hours=3))
    for number in range(10):
        assert (await entitlements.assign(number)).json()["subject_ref"] == refs[number]
    service.clock.move(NOON + DAY + timedelta(hours=4))
    await report(entitlements, *early)
    found = await adoption(entitlements)
    assert (found["active"], found["first_uses"], found["never_used"]) == (10, 0, 20)
    for _ in range(2):
        for number, ref in enumerate(refs):
            if then == "reported":
                await report(entitlements, used(f"b{number}", ref, NOON + DAY + timedelta(hours=4)))
            else:
                await entitlements.post("usage/consume", {"subject": ref, "feature": "deep-research"})
    found = await adoption(entitlements)
    assert (found["active"], found["first_uses"], found["days_to_first_use"], found["never_used"]) == (10, 10, 0, 10)


async def test_use_in_the_second_of_the_seat_is_its_first_use_and_activates_it(entitlements: Entitlements) -> None:
    """The reporter may know only whole seconds."""
    service = entitlements.service
    await entitlements.enroll(cap=5)
    given = NOON + timedelta(seconds=0.4)
    service.clock.move(given)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await report(entitlements, used(1, ada, NOON))
    row = await service.admin.fetchrow("select state, assigned_at, activated_at from seat")
    assert row is not None
    assert tuple(row) == ("active", given, given)
    assert await counted(entitlements) == [("08-06", 1, 1, 1, 1, 0)]


@pytest.mark.parametrize(
    ("before", "after", "hour"), [("America/New_York", None, 0), (None, "America/New_York", 4)], ids=["east", "west"]
)
async def test_an_enrollment_in_another_time_zone_neither_skips_nor_cuts_a_day(
    entitlements: Entitlements, before: str | None, after: str | None, hour: int
) -> None:
    service = entitlements.service
    await service.publish(entitlements.enrolled(cap=5).model_copy(update={"time_zone": before}))
    await eventually(lambda: is_open(entitlements, "enr_1"))
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    used_at = NOON + 60 * DAY  # October 5
    await pass_time(entitlements, used_at)
    await report(entitlements, used(1, ada, used_at))
    await enroll_again(entitlements, 2, used_at, after)
    await pass_time(entitlements, used_at + 2 * DAY)

    async def summarized() -> list[tuple[str, datetime]] | None:
        found = [(each.data.day, each.envelope.time) for each in await service.published(AdoptionSummarized)]
        return found if len(found) == 2 else None

    assert await eventually(summarized) == [
        ("2025-10-05", datetime(2025, 10, 6, hour, tzinfo=UTC)),
        ("2025-10-06", datetime(2025, 10, 7, hour, tzinfo=UTC)),
    ]


async def test_use_before_an_enrollment_in_a_time_zone_further_east_stays_on_its_day(
    entitlements: Entitlements,
) -> None:
    service = entitlements.service
    await service.publish(entitlements.enrolled(cap=5).model_copy(update={"time_zone": "America/New_York"}))
    await eventually(lambda: is_open(entitlements, "enr_1"))
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    await report(entitlements, used(1, ada, START))  # August 5 in New York
    service.clock.move(START + 2 * DAY)
    await enroll_again(entitlements, 2, START + 2 * DAY)
    await report(entitlements, used(2, ada, START + 2 * DAY))
    rows = await service.admin.fetch("select day, active_7_days, active_28_days from adoption_day order by day")
    assert [(row["active_7_days"], row["active_28_days"]) for row in rows] == [(1, 1)] * 10 + [(0, 1)] * 21
    assert f"{rows[0]['day']:%m-%d} {rows[-1]['day']:%m-%d}" == "08-05 09-04"
