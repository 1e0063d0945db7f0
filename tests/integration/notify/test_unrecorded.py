"""A result that cannot be recorded: recording is retried, and what was sent is not sent again meanwhile."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel, DeliveryState, Outcome, Progress, Verdict
from muster_notify.repository import deliveries
from muster_notify.settings import NotifySettings
from muster_notify.workers import dispatcher, trusted_clock
from muster_notify.workers.trusted_clock import TrustedClock
from muster_runtime.database.locks import ask_for_skew
from muster_runtime.messaging.lease import LEASE_SECONDS
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.notify.conftest import Notify, reinstated
from tests.integration.notify.receiver import Receiver, Request
from tests.support.clocks import ShiftedClock
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

INSERT = "insert into schema_migrations (version) values ($1)"
DELETE = "delete from schema_migrations where version = $1"
CONTRACTING = "20990102000001"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(dispatcher, "_log", log)
    return log


def failures(log: CapturingLogger) -> list[str]:
    names = ("delivery_not_recorded", "recording_retried")
    return [call.kwargs["error"] for call in log.calls if call.args[0] in names]


async def refuse(notify: Notify, condition: str) -> None:
    """Have the recording of every attempt refused with one of Postgres' own errors, which the test raises."""
    await notify.service.admin.execute(
        f"""
        create function refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'refused by the test' using errcode = '{condition}';
        end $$;
        create trigger refuse before insert on delivery_attempt for each row execute function refuse();
        """
    )


@pytest.mark.parametrize(
    ("contract", "expand"),
    [
        ("rename column detail to detail_of_old", "rename column detail_of_old to detail"),
        ("add column host text not null", "drop column host"),
    ],
)
async def test_nothing_is_sent_again_and_again_by_a_process_that_is_too_old_for_its_schema(
    notify: Notify, receiver: Receiver, log: CapturingLogger, contract: str, expand: str
) -> None:
    """It leaves the lease to newer code. What it still cannot record when it loses the lease is repeated once."""
    admin = notify.service.admin
    await notify.add_webhook(receiver.url)
    await admin.execute(INSERT, CONTRACTING)
    await admin.execute(f"alter table delivery_attempt {contract}")
    await notify.service.publish(reinstated(), reinstated())
    await eventually(lambda: failures(log))
    await eventually(lambda: _dispatch_lease_is_free(notify))
    assert all("SchemaTooNew" in error for error in failures(log))
    assert len(receiver.requests) == 1

    await admin.execute(f"alter table delivery_attempt {expand}")
    await admin.execute(DELETE, CONTRACTING)
    await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") in ([1, 2], [1, 1, 2])


@pytest.mark.parametrize("condition", ["insufficient_resources", "lock_not_available"])
async def test_a_result_is_recorded_later_and_nothing_is_sent_again(
    notify: Notify, receiver: Receiver, log: CapturingLogger, condition: str
) -> None:
    await notify.add_webhook(receiver.url)
    await refuse(notify, condition)
    await notify.service.publish(reinstated(), reinstated())
    await eventually(lambda: len(failures(log)) > 3)
    await notify.service.admin.execute("drop function refuse cascade")
    await notify.until(2, channel="webhook", state="delivered")
    assert receiver.sequences("NASA") == [1, 2]


async def test_a_result_that_one_agency_cannot_record_gives_its_slot_to_others(
    notify: Notify, receiver: Receiver, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the attempt is repeated."""
    monkeypatch.setattr(dispatcher, "RECORD_SECONDS", 0)
    await notify.add_webhook(receiver.url)
    await refuse(notify, "lock_not_available")
    await notify.service.publish(reinstated())
    await eventually(lambda: len(receiver.requests) > 1)
    await notify.service.admin.execute("drop function refuse cascade")
    await notify.until(channel="webhook", state="delivered")


async def test_an_agency_whose_lock_is_held_leaves_connections_to_the_lease(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    """Or attempts are canceled, and what the receivers of other agencies have taken is sent to them again."""
    settings: dict[str, Any] = {"webhook_allow_private": True, "webhook_timeout_seconds": 30}
    notify = Notify(await run_service(build, NotifySettings, **settings))
    answers = {"NASA": asyncio.Event(), "DOE": asyncio.Event()}

    async def answer(request: Request) -> None:
        await answers[request.event["agency_id"]].wait()

    receiver.delay = answer
    lanes = 14  # almost all of the slots that an agency can have
    for number in range(lanes):
        await notify.add_webhook(f"{receiver.url}?{number}")
    await notify.add_webhook(receiver.url, "DOE")
    await notify.service.publish(reinstated("DOE"), reinstated())
    await eventually(lambda: len(receiver.requests) == lanes + 1)
    admin = notify.service.admin
    async with admin.transaction():
        await admin.execute("select pg_advisory_xact_lock(hashtextextended('notify/NASA', 0))")
        answers["NASA"].set()
        until = time.monotonic() + 3 * LEASE_SECONDS
        await eventually(lambda: time.monotonic() > until, prompt=True)
    answers["DOE"].set()
    await notify.until(1, "DOE", channel="webhook", state="delivered")
    await notify.until(lanes, channel="webhook", state="delivered")
    assert len(receiver.requests) == lanes + 1


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """How the database's clock disagreed each time that notify asked, which it now does without a pause."""
    monkeypatch.setattr(trusted_clock, "CHECK_SECONDS", 0)
    monkeypatch.setattr(trusted_clock, "REST_SECONDS", 0)
    answers = []

    async def ask(*arguments: Any) -> str | None:
        answers.append(await ask_for_skew(*arguments))
        return answers[-1]

    monkeypatch.setattr(trusted_clock, "ask_for_skew", ask)
    return answers


async def test_a_process_whose_clock_goes_wrong_sends_nothing_again_until_the_clock_is_corrected(
    run_service: ServiceRunner, receiver: Receiver, log: CapturingLogger, checks: list[str | None]
) -> None:
    clock = ShiftedClock(timedelta())
    notify = Notify(await run_service(build, NotifySettings, clock=clock, webhook_allow_private=True))
    await notify.add_webhook(receiver.url)

    async def shift(_: Request) -> None:
        clock.offset = timedelta(seconds=5)

    receiver.delay = shift
    await notify.service.publish(reinstated(), time=clock.now())
    await eventually(lambda: failures(log))
    await eventually(lambda: _dispatch_lease_is_free(notify))
    before = len(checks)
    await eventually(lambda: len(checks) > before + 3)
    assert None not in checks[-3:]
    assert all("ClockSkewed" in error or "LeaseOver" in error for error in failures(log))
    assert len(receiver.requests) == 1
    health = (await notify.get("/health/ready")).json()
    assert [warning for warning in health["warnings"] if "no delivery is sent: this process's clock reads" in warning]
    metrics = (await notify.get("/metrics")).text
    overdue = next(line for line in metrics.splitlines() if line.startswith("muster_delivery_overdue_seconds{"))
    assert float(overdue.split()[-1]) > 1

    receiver.delay = None
    clock.offset = timedelta()
    await notify.until(channel="webhook", state="delivered")
    assert len(receiver.requests) == 2


async def test_a_result_changes_nothing_if_another_process_has_recorded_its_own_meanwhile(
    run_service: ServiceRunner,
) -> None:
    notify = Notify(await run_service(build, NotifySettings, roles=ALL_ROLES - {Role.WORKER}))
    await notify.add_webhook("https://agency.example/hook")
    await notify.service.publish(reinstated())
    await notify.until(channel="webhook")
    database, now = notify.service.runtime.database, notify.service.clock.now()
    async with database.connection() as connection:
        (due,) = await deliveries.list_due(connection, Channel.WEBHOOK, now, busy=(), limit=1)
    waits = Progress(DeliveryState.PENDING, now + timedelta(seconds=5))
    recorded = []
    for _ in range(2):
        async with database.write("NASA", context=CONTEXT) as uow:
            outcome = Outcome(Verdict.RETRY, "answered 503")
            recorded.append(
                await deliveries.add_attempt(uow.connection, due, outcome, waits, attempted_at=now, milliseconds=1)
            )
    assert recorded == [True, False]
    assert [delivery["attempts"] for delivery in await notify.deliveries(channel="webhook")] == [1]


async def test_a_leader_whose_clock_goes_back_leaves_the_lease_to_others(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    """To it, nothing would seem due until its clock catches up."""
    clock = ShiftedClock(timedelta())
    notify = Notify(await run_service(build, NotifySettings, clock=clock, webhook_allow_private=True))
    await notify.add_webhook(receiver.url)
    await notify.service.publish(reinstated(), time=clock.now())
    await notify.until(channel="webhook", state="delivered")
    clock.offset = timedelta(seconds=-60)
    await eventually(lambda: _dispatch_lease_is_free(notify))


async def test_a_clock_that_was_refused_must_agree_more_closely_for_a_while(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted_clock, "CHECK_SECONDS", 0)
    monkeypatch.setattr(trusted_clock, "REST_SECONDS", 0)
    clock, trusted = ShiftedClock(timedelta()), TrustedClock()
    service = await run_service(build, NotifySettings, clock=clock, roles=frozenset())

    async def is_trusted(off_seconds: float) -> bool:
        clock.offset = timedelta(seconds=off_seconds)
        return await trusted.is_trusted(service.runtime)

    assert [await is_trusted(off) for off in (5, -5, 0.8, 5)] == [False, False, True, False]
    trusted.refuse("they disagree")
    assert [await is_trusted(off) for off in (0.8, -0.8, 0.2)] == [False, False, True]
    monkeypatch.setattr(trusted_clock, "STRICT_SECONDS", 0)
    trusted.refuse("they disagree")
    assert await is_trusted(0.8)


async def test_a_refused_process_leaves_the_lease_to_others_even_if_the_clocks_seem_to_agree(
    run_service: ServiceRunner, receiver: Receiver, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow network hides a skew."""

    async def ask(*_: Any) -> None:
        return None

    async def shift(_: Request) -> None:
        clock.offset = timedelta(seconds=5)

    monkeypatch.setattr(trusted_clock, "ask_for_skew", ask)
    clock = ShiftedClock(timedelta())
    notify = Notify(await run_service(build, NotifySettings, clock=clock, webhook_allow_private=True))
    await notify.add_webhook(receiver.url)
    receiver.delay = shift
    await notify.service.publish(reinstated(), time=clock.now())
    await eventually(lambda: failures(log))
    await eventually(lambda: _dispatch_lease_is_free(notify))
    assert len(receiver.requests) == 1


async def _dispatch_lease_is_free(notify: Notify) -> bool:
    held = "select expires_at > clock_timestamp() from lease where duty = 'dispatch'"
    return not await notify.service.admin.fetchval(held)
