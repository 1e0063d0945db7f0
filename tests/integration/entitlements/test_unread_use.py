"""Use that was reported in time keeps a seat and counts as adoption, however far behind the intake is."""

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from structlog.testing import capture_logs

from muster_contracts.entitlements import AdoptionSummarized, FeatureUsed, SeatRevoked, TrialExpired
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.workers.usage import UsageIntake
from muster_runtime.process.roles import Role
from muster_runtime.scheduling import news
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_usage import report, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, count_all, put
from tests.integration.entitlements.test_usage_killed import move
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

MINUTE = timedelta(minutes=1)
# A trial ends then, too.
MIDNIGHT = START + timedelta(days=60)
PUNCTUAL, LATE = MIDNIGHT, MIDNIGHT + 15 * MINUTE

SEATS, USERS = 25, 12
ADA = USERS  # uses her seat at the last moment


async def before_midnight(front: Entitlements) -> list[str]:
    """At midnight, Ada's seat is to be revoked, and a summary is due: of the day's other users, and of hers.

    Returns the people's subject references.
    """
    admin = front.service.admin
    await front.enroll(cap=SEATS)
    people = [(await front.assign(number)).json()["subject_ref"] for number in range(SEATS)]
    await move(front, MIDNIGHT - 30 * MINUTE)
    earlier = [used(number, people[number], MIDNIGHT - 40 * MINUTE) for number in range(USERS)]
    assert (await report(front, *earlier)).json()["counted"] == USERS
    body = {"idle_days": 30, "warning_days": 7}
    assert (await front.service.client.put("/v1/agencies/NASA/seat-policy", json=body)).status_code == 200
    await admin.execute(
        "update seat set state = 'active', activated_at = assigned_at, idle_reclaim_at = $2 where subject_ref = $1",
        people[ADA],
        MIDNIGHT,
    )
    await admin.execute("delete from deadline where due_at < $1 or kind = 'trial-ending-soon'", MIDNIGHT)
    due = await admin.fetch("select kind from deadline where due_at = $1 order by kind", MIDNIGHT)
    assert {row["kind"] for row in due} >= {"adoption-summarized", "idle-seats", "trial-expired"}
    return people


def her_use(people: list[str]) -> dict[str, Any]:
    return used("ada", people[ADA], MIDNIGHT - 10 * MINUTE)


async def beside(run_service: ServiceRunner, front: Entitlements, *roles: Role) -> RunningService:
    return await run_service(build, EntitlementsSettings, roles=frozenset(roles), beside=front.service)


async def waiting(service: RunningService) -> list[str]:
    """What deadlines wait for, according to readiness."""
    warnings = (await service.client.get("/health/ready")).json()["warnings"]
    return [warning for warning in warnings if warning.startswith("deadlines wait: ") and "known" not in warning]


async def next_search(front: Entitlements) -> bool:
    """Whether the search at midnight is over."""
    query = "select due_at > $1 from deadline where kind = 'idle-seats'"
    return bool(await front.service.admin.fetchval(query, MIDNIGHT))


async def state_of(front: Entitlements, person: str) -> tuple[str, bool]:
    """The state of a person's seat, and whether it is to be revoked."""
    query = "select state, idle_reclaim_at is not null as warned from seat where subject_ref = $1"
    row = await front.service.admin.fetchrow(query, person)
    assert row is not None
    return row["state"], row["warned"]


@pytest.mark.parametrize("now", [PUNCTUAL, LATE])
async def test_what_was_reported_before_a_deadline_is_read_before_the_seat_is_revoked(
    front: Entitlements, run_service: ServiceRunner, now: Any
) -> None:
    people = await before_midnight(front)
    runtime = front.service.runtime
    options = runtime.kafka.options()
    async with AIOKafkaProducer(**options, transactional_id=f"{front.service.topic_prefix}reporter") as producer:
        topic = front.service.topic_prefix + FeatureUsed.topic
        for event in (her_use(people), used("aborted", people[ADA + 1], MIDNIGHT - MINUTE)):
            await producer.begin_transaction()
            # The key says nothing about the agency.
            await producer.send_and_wait(
                topic, json.dumps(event).encode(), headers=STRUCTURED, key=event["id"].encode()
            )
            await (producer.abort_transaction if event["id"] == "aborted" else producer.commit_transaction)()
    await move(front, now)
    scheduler = await beside(run_service, front, Role.SCHEDULER, Role.RELAY)
    [wait] = await eventually(partial(waiting, scheduler))
    assert f"{FeatureUsed.topic}[" in wait
    await published(front, TrialExpired, 2)  # it does not wait
    assert await state_of(front, people[ADA]) == ("active", True)

    await beside(run_service, front, Role.WORKER)
    await eventually(partial(next_search, front))
    assert await state_of(front, people[ADA]) == ("active", False)
    assert await front.service.published(SeatRevoked) == []
    [summary] = await published(front, AdoptionSummarized, 1)
    [research] = [each for each in summary.data.features if each.feature == "deep-research"]
    assert (summary.envelope.time, research.active) == (MIDNIGHT, USERS + 1)


async def test_use_that_waits_for_its_agencys_lock_is_applied_before_the_seat_is_revoked(
    front: Entitlements, run_service: ServiceRunner
) -> None:
    people = await before_midnight(front)
    runtime = front.service.runtime
    await put(front, her_use(people))
    async with runtime.database.write("NASA", context=CONTEXT):
        await count_all(UsageIntake(runtime))
    await move(front, PUNCTUAL)
    scheduler = await beside(run_service, front, Role.SCHEDULER)
    expected = f"deadlines wait: its records of {FeatureUsed.topic} wait to be applied (agencies: 1)"
    await eventually(partial(says, scheduler, expected))
    await beside(run_service, front, Role.WORKER)
    await eventually(partial(next_search, front))
    assert await state_of(front, people[ADA]) == ("active", False)


async def says(service: RunningService, expected: str) -> bool:
    return await waiting(service) == [expected]


async def test_a_deadline_waits_only_so_long_for_an_intake_that_cannot_be_read(
    front: Entitlements, run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=news.INTAKE_PATIENCE_SECONDS) == timedelta(days=1)
    monkeypatch.setattr(news, "INTAKE_PATIENCE_SECONDS", 1.0)
    people = await before_midnight(front)
    await put(front, her_use(people))
    await move(front, PUNCTUAL)
    with capture_logs() as logs:
        await beside(run_service, front, Role.SCHEDULER)
        await eventually(partial(next_search, front))
    assert await state_of(front, people[ADA]) == ("revoked", True)
    [given_up] = [line for line in logs if line["event"] == "intake_no_longer_awaited"]
    assert (given_up["agency_id"], given_up["kinds"]) == ("NASA", ["adoption-summarized", "idle-seats"])


async def test_an_intake_that_was_read_meanwhile_is_awaited_for_the_whole_time_again(
    front: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "INTAKE_PATIENCE_SECONDS", 0.0)
    runtime = front.service.runtime
    assert runtime.service.intake is not None
    ends = news.Ends(runtime.clock, runtime.kafka, front.service.topic_prefix, {})
    intake = news.IntakeNews(runtime.database, runtime.service.intake, ends)
    due, waits = {"NASA": START}, {"NASA": news.ENDS_UNKNOWN}
    assert [await intake.unread(each) for each in (due, due, {}, due)] == [waits, {}, {}, waits]


async def test_the_sandboxs_clock_waits_for_reported_use(front: Entitlements) -> None:
    """Otherwise, use could be too late to count when it is read."""

    async def lag(expected: int) -> bool:
        reply = await front.service.client.get("/sandbox/state")
        return bool(reply.json()["lag"] == expected)

    await front.enroll(cap=5)
    await eventually(partial(lag, 0))
    await put(front, used(1), used(2))
    await eventually(partial(lag, 2))
    await count_all(UsageIntake(front.service.runtime))
    await eventually(partial(lag, 0))
