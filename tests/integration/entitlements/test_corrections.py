"""Corrections of the past: what was true at an instant, as known today, and what was known at that time."""

from datetime import datetime, timedelta

from muster_contracts.enrollment import AgencyEnrolled
from muster_entitlements.handlers.closings import SEATS_CLOSED, on_seats_closed_due
from muster_runtime.scheduling.deadlines import Deadline
from tests.integration.entitlements.conftest import NEXT_END, START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.random_life import HOUR, address, get, text
from tests.integration.entitlements.test_catalog import publish
from tests.integration.entitlements.test_grants import grant
from tests.integration.entitlements.test_seat_lists import found
from tests.integration.entitlements.test_seat_trials import CANVAS, activate
from tests.integration.entitlements.test_windows import decision, send, windows
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually

# What can be asked about a past instant.
PATHS = ("checks?subject=person.1@nasa.gov", "pool?", "windows?", "seats?", "seat-counts?", f"seats/seat_{'0' * 32}?")


async def test_a_withdrawal_that_is_read_late_shows_what_was_true_and_what_was_known(
    entitlements: Entitlements,
) -> None:
    clock = entitlements.service.clock
    await entitlements.enroll(cap=1)
    await entitlements.assign(1)
    clock.move(START + 10 * DAY)
    await entitlements.service.publish(entitlements.withdrawn(at=START + 9 * DAY))

    async def withdrawn() -> bool:
        return bool((await entitlements.pool())["state"] == "withdrawn")

    async def is_back() -> bool:
        return bool((await entitlements.pool())["enrollment_id"] == "enr_2")

    async def checked(**instants: str) -> str:
        answer = await get(entitlements, "checks", subject=address(1), feature="deep-research", **instants)
        return str(answer["reason"])

    await eventually(withdrawn)
    before, unread = text(START + 8 * DAY), text(START + 9 * DAY + 12 * HOUR)
    for enrollment_id in (None, "enr_2"):  # it stays so when the agency is back
        if enrollment_id:
            clock.move(START + 11 * DAY)
            again = entitlements.enrolled(1, enrollment_id).model_copy(update={"starts_at": clock.now()})
            await entitlements.service.publish(again)
            await eventually(is_back)
        assert await checked(at=unread) == "withdrawn"
        assert await checked(at=unread, recorded_at=unread) == "window_open"
        assert await checked(at=before) == await checked(at=before, recorded_at=unread) == "window_open"
        assert (await get(entitlements, "pool", at=unread))["state"] == "withdrawn"
        assert (await get(entitlements, "pool", at=unread, recorded_at=unread))["state"] == "open"


async def test_withdrawals_and_enrollments_that_are_read_at_once_count_from_their_own_instants(
    entitlements: Entitlements,
) -> None:
    """All are recorded at one instant, on day 10: a version between them lasts no time."""
    clock, left, back = entitlements.service.clock, START + 7 * DAY, START + 8 * DAY
    await entitlements.enroll(cap=1)
    await entitlements.assign(1)
    clock.move(START + 10 * DAY)

    def again(enrollment_id: str) -> AgencyEnrolled:
        return entitlements.enrolled(2, enrollment_id).model_copy(update={"starts_at": back, "ends_at": NEXT_END})

    await entitlements.service.publish(
        entitlements.withdrawn(at=left),
        again("enr_2"),
        entitlements.withdrawn("enr_2", at=START + 9 * DAY),
        again("enr_3"),
    )

    async def is_back() -> bool:
        return bool((await entitlements.pool())["enrollment_id"] == "enr_3")

    async def answered(**instants: str) -> tuple[str, str, str, str]:
        pool = await get(entitlements, "pool", **instants)
        [ends_at] = [
            window["ends_at"]
            for window in (await get(entitlements, "windows", **instants))["items"]
            if window["feature"] == "deep-research"
        ]
        check = await get(entitlements, "checks", subject=address(1), feature="deep-research", **instants)
        return pool["enrollment_id"], pool["state"], ends_at, check["reason"]

    await eventually(is_back)
    clock.move(START + 11 * DAY)
    trial_ends = text(START + 60 * DAY)
    for day, state, reason in (
        (6, "open", "window_open"),
        (7, "withdrawn", "withdrawn"),
        (7.5, "withdrawn", "withdrawn"),
        (9.5, "withdrawn", "withdrawn"),  # the later enrollments are not known before day 10
    ):
        at = text(START + day * DAY)
        assert await answered(at=at) == ("enr_1", state, text(left), reason), day
        assert await answered(at=at, recorded_at=at) == ("enr_1", "open", trial_ends, "window_open"), day
    now = await answered()
    assert now[:2] == ("enr_3", "open")
    for instant in (START + 10 * DAY, clock.now()):
        assert await answered(at=text(instant)) == await answered(recorded_at=text(instant)) == now
    seats = [(await get(entitlements, "seat-counts", at=text(START + day * DAY)))["revoked"] for day in (6, 10)]
    assert seats == [0, 1]


async def test_a_withdrawal_is_kept_if_its_seats_are_revoked_at_the_instant_of_the_next_enrollment(
    front: Entitlements,
) -> None:
    """Revoking the seats ends the withdrawn version, and does not raise the revision; the enrollment ends it again."""
    clock, left, back = front.service.clock, START + 5 * DAY, START + 10 * DAY
    await front.enroll(cap=1)
    await front.assign(1)
    clock.move(left)
    await front.service.publish(front.withdrawn(at=left))

    async def withdrawn() -> bool:
        return bool((await front.pool())["state"] == "withdrawn")

    async def is_back() -> bool:
        return bool((await front.pool())["enrollment_id"] == "enr_2")

    await eventually(withdrawn)
    clock.move(back)
    async with front.service.runtime.database.write("NASA", context=CONTEXT) as uow:
        await on_seats_closed_due(uow, [Deadline(SEATS_CLOSED, "NASA", "NASA", left)])
    assert (await front.pool())["revoking"] == 0
    await front.service.publish(front.enrolled(2, "enr_2").model_copy(update={"starts_at": back}))
    await eventually(is_back)
    for day, enrollment_id, state in ((4, "enr_1", "open"), (5, "enr_1", "withdrawn"), (10, "enr_2", "open")):
        pool = await get(front, "pool", at=text(START + day * DAY))
        assert (pool["enrollment_id"], pool["state"]) == (enrollment_id, state), day


async def test_a_corrected_start_shows_what_was_true_and_what_was_known(entitlements: Entitlements) -> None:
    clock = entitlements.service.clock
    await entitlements.enroll(cap=1)
    await entitlements.assign(1)
    found = await windows(entitlements)
    clock.move(START + 20 * DAY)
    start = decision(entitlements, "start", "deep-research", found)
    proposed = await send(entitlements, start, "ann", starts_on="2025-08-16", reason="wrong date")
    approved = await send(entitlements, f"{proposed.headers['location']}/approval", "bob")
    assert approved.status_code == 200, approved.text
    clock.move(START + 30 * DAY)
    early, known = text(START + 5 * DAY), text(START + 19 * DAY)

    async def checked(**instants: str) -> str:
        answer = await get(entitlements, "checks", subject=address(1), feature="deep-research", **instants)
        return str(answer["reason"])

    assert await checked(at=early) == "window_closed"
    assert await checked(at=early, recorded_at=known) == "window_open"
    assert await checked(at=text(START + 12 * DAY)) == "window_open"
    starts = [
        next(
            item["starts_at"]
            for item in (await get(entitlements, "windows", **instants))["items"]
            if item["trial"] and item["feature"] == "deep-research"
        )
        for instants in ({}, {"at": early}, {"recorded_at": known}, {"at": early, "recorded_at": known})
    ]
    assert starts == ["2025-08-16T00:00:00Z"] * 2 + ["2025-08-06T00:00:00Z"] * 2

    refused = {
        "2025-08-05T23:59:59Z": "program",
        text(clock.now() + DAY): "future",
        "yesterday": "instant",
        "1756000000": "instant",
    }
    for path in PATHS:
        for value, rule in refused.items():
            reply = await entitlements.service.client.get(f"/v1/agencies/NASA/{path}&at={value}")
            assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "at"), reply.text
            assert rule in reply.json()["errors"][0]["rule"]
    reply = await entitlements.get("grants", recorded_at="2025-08-05T00:00:00Z")
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "recorded_at")
    assert (await entitlements.get("seats", at=early, state="active")).status_code == 422
    assert (await entitlements.get("seats", at=text(START))).json()["items"] != []
    others = Entitlements(entitlements.service, "NSF")
    assert (await others.get("pool", at=early)).status_code == 404
    assert (await others.get("seats", at=early)).json() == {"items": [], "next": None}


async def test_the_seats_of_a_past_instant_are_listed_in_pages_and_retrieved_one_by_one(
    entitlements: Entitlements,
) -> None:
    clock = entitlements.service.clock
    await entitlements.enroll(cap=5)
    seats = sorted([(await entitlements.assign(person)).json()["seat_id"] for person in range(3)])
    clock.move(START + DAY)
    assert (await entitlements.post(f"seats/{seats[0]}/revocation")).status_code == 200
    clock.move(START + 2 * DAY)
    seats.append((await entitlements.assign(3)).json()["seat_id"])
    clock.move(START + 3 * DAY)
    assert (await entitlements.post(f"seats/{seats[1]}/revocation")).status_code == 200
    revoked = {seats[0]: text(START + DAY), seats[1]: text(START + 3 * DAY)}
    for days, there in ((0, 3), (1, 3), (2, 4), (3, 4)):
        at = text(START + days * DAY)
        listed = await found(entitlements, "seats", at=at)
        assert [seat["seat_id"] for seat in listed] == seats[:there]
        by_then = [revoked_at if (revoked_at := revoked.get(each, at + "+")) <= at else None for each in seats[:there]]
        assert [seat["revoked_at"] for seat in listed] == by_then
        assert [await get(entitlements, f"seats/{each}", at=at) for each in seats[:there]] == listed
        for later in seats[there:]:
            assert (await entitlements.get(f"seats/{later}", at=at)).status_code == 404


async def test_the_grants_of_a_past_instant_are_listed_in_pages(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    grants = sorted([(await grant(entitlements, subject=address(person)))["grant_id"] for person in range(3)])
    entitlements.service.clock.move(START + DAY)
    assert (await entitlements.post(f"grants/{grants[0]}/revocation", {"reason": "over"})).status_code == 200
    entitlements.service.clock.move(START + 2 * DAY)
    grants.append((await grant(entitlements, subject=address(3)))["grant_id"])
    for days, states in enumerate((["active"] * 3, ["revoked", "active", "active"], ["revoked", *["active"] * 3])):
        listed = await found(entitlements, "grants", recorded_at=text(START + days * DAY))
        assert [each["grant_id"] for each in listed] == grants[: len(states)]
        assert [each["state"] for each in listed] == states


async def test_what_was_granted_at_an_instant_is_in_force_from_its_record_up_to_its_revocation(
    entitlements: Entitlements,
) -> None:
    await entitlements.enroll(cap=1)
    await entitlements.assign(1)
    changes = [START + day * DAY for day in (1, 2)]
    entitlements.service.clock.move(changes[0])
    granted = await grant(entitlements, subject=address(1))
    entitlements.service.clock.move(changes[1])
    path = f"grants/{granted['grant_id']}/revocation"
    assert (await entitlements.post(path, {"reason": "over"})).status_code == 200
    unknown = {"at": text(changes[0]), "recorded_at": text(changes[0] - timedelta.resolution)}
    answer = await get(entitlements, "checks", subject=address(1), feature="deep-research", **unknown)
    assert answer["reason"] == "window_open"
    for change, before, after in zip(changes, ("window_open", "granted"), ("granted", "window_open"), strict=True):
        for instant, expected in ((change - timedelta.resolution, before), (change, after)):
            answer = await get(entitlements, "checks", subject=address(1), feature="deep-research", at=text(instant))
            assert answer["reason"] == expected, instant


async def test_the_seats_of_an_earlier_enrollment_read_as_revoked_from_the_next_one_on(front: Entitlements) -> None:
    """Their rows are revoked in steps, and so only later."""
    clock, back = front.service.clock, START + 5 * DAY
    await front.enroll(cap=3)
    await front.assign(1)
    assert (await front.post("seats", {"email": address(2), "state": "invited"})).status_code == 201
    clock.move(back)
    again = front.enrolled(3, "enr_2").model_copy(update={"starts_at": back})
    await front.service.publish(front.withdrawn(at=back), again)

    async def is_back() -> bool:
        return bool((await front.pool())["enrollment_id"] == "enr_2")

    async def asked(at: datetime) -> tuple[list[tuple[str, bool]], int, str]:
        seats = (await get(front, "seats", at=text(at)))["items"]
        counts = await get(front, "seat-counts", at=text(at))
        answer = await get(front, "checks", subject=address(1), feature="deep-research", at=text(at))
        states = sorted((seat["state"], seat["invited_until"] is not None) for seat in seats)
        return states, counts["revoked"], answer["reason"]

    await eventually(is_back)
    revoked = [("revoked", False)] * 2, 2, "no_seat"
    assert await asked(back) == revoked
    clock.move(START + 6 * DAY)
    async with front.service.runtime.database.write("NASA", context=CONTEXT) as uow:
        await on_seats_closed_due(uow, [Deadline(SEATS_CLOSED, "NASA", "NASA", back)])
    assert await front.service.admin.fetchval("select count(*) from seat where state <> 'revoked'") == 0
    assert await asked(back) == await asked(clock.now()) == revoked
    assert await asked(START + 4 * DAY) == ([("assigned", False), ("invited", True)], 0, "window_open")


async def test_the_trial_of_a_transferred_seat_is_as_long_in_the_past(entitlements: Entitlements) -> None:
    await publish(entitlements, [CANVAS], "new-agencies")
    await entitlements.enroll(cap=1)
    seat = await activate(entitlements, "ada", START)
    clock, transferred = entitlements.service.clock, START + 5 * DAY
    clock.move(transferred)
    assert (await entitlements.post(f"{seat}/transfer", {"email": address(1)})).status_code == 200
    clock.move(START + 6 * DAY)
    for version in ("the present one", "an earlier one"):
        for instants in ({"at": text(transferred)}, {"at": text(transferred), "recorded_at": text(transferred)}):
            answer = await get(entitlements, "checks", subject=address(1), feature="canvas", **instants)
            assert (answer["reason"], answer["valid_until"]) == ("window_open", text(START + 30 * DAY)), version
        assert (await entitlements.post(f"{seat}/suspension", {})).status_code == 200
