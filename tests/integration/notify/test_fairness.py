"""One agency's endpoints and e-mails: how many there may be, and that they never crowd out another agency's."""

import asyncio
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from muster_contracts.entitlements import QuotaThresholdCrossed
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel
from muster_notify.repository import deliveries
from muster_notify.settings import NotifySettings
from muster_notify.workers.dispatcher import SLOTS, TURN_SECONDS
from muster_runtime.database.transactions import Connection
from muster_runtime.service import Service
from tests.integration.notify.conftest import START, Notify, contact, enrolled, reinstated
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver, Request
from tests.support.eventually import eventually
from tests.support.explaining import Explaining
from tests.support.services import ServiceRunner

LIMIT = 20  # endpoints of an audience

BACKLOG = """
insert into delivery (
    id, agency_id, event_id, event_type, correlation_id, rule, channel, recipient, audience, payload, state, attempts,
    recorded_at, next_attempt_at
)
select
    'dlv_' || n, agency_id, 'evt_' || n, 'type', 'cor_1', 'quota-threshold-crossed', 'email', 'sub_' || n, agency_id,
    '', 'pending', 0, $1, $1
from
    generate_series(1, 30000) as n,
    lateral (select case when n < 29998 then 'NASA' else $2 end as agency_id) as a
"""


async def add(notify: Notify, url: str, agency_id: str = "NASA") -> Any:
    return await notify.service.client.post(f"/v1/agencies/{agency_id}/webhooks", json={"url": url})


@pytest.mark.parametrize("audience", ["NASA", "*"])
async def test_an_audience_has_a_limited_number_of_endpoints(notify: Notify, receiver: Receiver, audience: str) -> None:
    urls = [f"{receiver.url}?{number}" for number in range(LIMIT + 5)]
    replies = await asyncio.gather(*(add(notify, url, audience) for url in urls))
    assert Counter(reply.status_code for reply in replies) == {201: LIMIT, 409: 5}
    refused = next(reply.json() for reply in replies if reply.status_code == 409)
    assert refused["type"] == "urn:muster:problem:webhook-limit-reached"
    assert str(LIMIT) in refused["detail"]
    assert (await add(notify, receiver.url, "EPA")).status_code == 201
    webhook_id = next(reply.json()["webhook_id"] for reply in replies if reply.status_code == 201)
    await notify.service.client.delete(f"/v1/agencies/{audience}/webhooks/{webhook_id}")
    again = [(await add(notify, f"{receiver.url}?again{number}", audience)).status_code for number in range(2)]
    assert again == [201, 409]  # a deleted one does not count


async def test_hanging_endpoints_of_one_agency_hold_up_no_other(notify: Notify, receiver: Receiver) -> None:
    receiver.answer = lambda request: None if "hang" in request.path else 204
    for number in range(LIMIT):
        await notify.add_webhook(f"{receiver.url}?hang={number}")
    await notify.add_webhook(receiver.url, "DOE")
    await notify.service.publish(reinstated())
    await eventually(lambda: len(receiver.requests) >= 10)
    await notify.service.publish(reinstated("DOE"))
    await notify.until(1, "DOE", channel="webhook", state="delivered")
    hanging = await notify.deliveries(channel="webhook")
    assert sum(delivery["attempts"] for delivery in hanging) == 0  # the dispatcher still waits for them


async def test_slow_endpoints_of_several_agencies_hold_up_no_other_for_more_than_an_attempt(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    """Each agency begins when the one before has all the slots that it can get, so that together they have all."""
    notify = Notify(await run_service(build, NotifySettings, webhook_allow_private=True, webhook_timeout_seconds=30))
    answers = asyncio.Semaphore(0)

    async def slow(request: Request) -> None:
        if "slow" in request.path:
            await answers.acquire()

    async def arrived(agency_id: str, count: int) -> None:
        await eventually(lambda: len(receiver.sequences(agency_id)) == count)

    receiver.delay = slow
    agencies = {"DOC": 14, "DOI": 7, "DOJ": 4, "DOL": 2, "DOS": 1, "DOT": 1}
    for agency_id in agencies:
        urls = [f"{receiver.url}?slow={number}" for number in range(LIMIT)]
        await asyncio.gather(*(notify.add_webhook(url, agency_id) for url in urls))
    await notify.add_webhook(receiver.url, "DOE")
    for agency_id, held in agencies.items():
        await notify.service.publish(reinstated(agency_id), reinstated(agency_id))
        await arrived(agency_id, held)
    await notify.service.publish(reinstated("DOE"))
    await notify.until(1, "DOE", channel="webhook", state="pending")
    began = time.monotonic()
    await eventually(lambda: time.monotonic() > began + TURN_SECONDS, prompt=True)
    answers.release()
    await notify.until(1, "DOE", channel="webhook", state="delivered")
    for _ in range(len(agencies) * LIMIT * 2):
        answers.release()
    for agency_id in agencies:
        await arrived(agency_id, LIMIT * 2)
        for number in range(LIMIT):
            lane = [request.event for request in receiver.requests if request.path.endswith(f"?slow={number}")]
            assert [event["sequence"] for event in lane if event["agency_id"] == agency_id] == [1, 2]


def without_workers(settings: NotifySettings) -> Service:
    return replace(build(settings), workers=[])


async def test_what_is_due_of_one_agency_hides_no_other(run_service: ServiceRunner) -> None:
    notify = Notify(await run_service(without_workers, NotifySettings))
    for number in range(LIMIT):
        await notify.add_webhook(f"https://nasa.example/{number}")
    for agency_id in ("DOE", "EPA"):
        await notify.add_webhook("https://agency.example/", agency_id)
    for agency_id in ("NASA", "DOE", "EPA"):
        await notify.service.publish(reinstated(agency_id))
        await notify.until(LIMIT if agency_id == "NASA" else 1, agency_id, channel="webhook")
    now = notify.service.clock.now()

    async def due(limit: int, served: Sequence[str] = ()) -> list[str]:
        async with notify.service.runtime.database.connection() as connection:
            found = await deliveries.list_due(connection, Channel.WEBHOOK, now, busy=(), served=served, limit=limit)
            return [delivery.audience for delivery in found]

    assert await due(3) == ["NASA", "DOE", "EPA"]
    assert await due(6) == ["NASA", "DOE", "EPA", "NASA", "NASA", "NASA"]
    assert Counter(await due(100)) == {"NASA": LIMIT, "DOE": 1, "EPA": 1}
    # An audience that has waited for long does not precede one that has had no turn yet.
    assert await due(2, ["NASA"]) == ["DOE", "EPA"]
    assert await due(4, ["DOE", "NASA"]) == ["EPA", "DOE", "NASA", "NASA"]


@pytest.mark.parametrize("last", ["NASA", "USDA"])
async def test_a_look_for_what_is_due_reads_no_more_than_it_finds(run_service: ServiceRunner, last: str) -> None:
    """However many deliveries of one agency are due before another's."""
    notify = Notify(await run_service(without_workers, NotifySettings))
    admin = notify.service.admin
    await admin.execute(BACKLOG, START, last)
    await admin.execute("vacuum analyze delivery")
    explaining = Explaining(admin, "(analyze, costs off, timing off)")
    await deliveries.list_due(
        cast("Connection", explaining), Channel.EMAIL, START, busy=[("NASA", "sub_1")], served=["NASA"], limit=8
    )
    assert "using delivery_due_by_audience on delivery" in explaining.plan, explaining.plan
    removed = re.findall(r"Rows Removed by Filter: (\d+)", explaining.plan)
    assert sum(map(int, removed)) < 10, explaining.plan


async def test_many_emails_of_one_agency_hold_up_no_other(notify: Notify, mail: MailServer) -> None:
    people = [f"sub_{number}" for number in range(40)]
    await notify.service.publish(contact("DOE", "eve@doe.example"))
    await notify.service.admin.executemany(
        "insert into directory (agency_id, subject_ref, role, email) values ('NASA', $1, 'person', 'a@nasa.example')",
        [(person,) for person in people],
    )
    mail.refuse_message = "451 later"
    await notify.service.publish(*(crossed(person) for person in people))
    await notify.until(len(people), channel="email", state="pending")
    await notify.service.publish(enrolled("DOE"))
    await notify.settle()
    mail.refuse_message = None
    notify.move(seconds=5)
    await notify.until(1, "DOE", state="delivered")
    assert mail.recipients.index("eve@doe.example") < SLOTS[Channel.EMAIL]


def crossed(person: str) -> QuotaThresholdCrossed:
    return QuotaThresholdCrossed(
        agency_id="NASA",
        subject_ref=person,
        feature="deep-research",
        threshold_percent=50,
        used=13,
        quota=25,
        period_starts_at=START,
        period_ends_at=START + timedelta(days=26),
    )


@dataclass
class SilentNames:
    """Names under `silent.test`, whose name servers do not answer until `released`; and which names were asked for."""

    released: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentNames]:
    names, getaddrinfo = SilentNames(), socket.getaddrinfo

    def unanswered(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".silent.test"):
            names.asked.append(host)
            names.released.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    yield names
    names.released.set()


async def test_names_that_nobody_resolves_hold_up_no_other(
    notify: Notify, receiver: Receiver, silent: SilentNames
) -> None:
    for number in range(LIMIT):
        await notify.add_webhook(f"http://n{number}.silent.test/")
    await notify.add_webhook(f"http://localhost:{receiver.port}/hook", "DOE")
    await notify.service.publish(reinstated())
    await notify.until(LIMIT, channel="webhook")

    async def attempted() -> list[Any]:
        return [delivery for delivery in await notify.deliveries(channel="webhook") if delivery["attempts"]]

    given_up = await eventually(attempted)
    assert {delivery["last_error"] for delivery in given_up} == {"no answer within 2 s"}
    await notify.service.publish(reinstated("DOE"))
    await notify.until(1, "DOE", channel="webhook", state="delivered")
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().getaddrinfo("localhost", None)  # as for the mail server or Kafka

    asked = len(silent.asked)
    assert 1 < asked < SLOTS[Channel.WEBHOOK]
    notify.move(seconds=5)  # the next attempts are due, but what the first ones asked for is still unanswered
    await notify.service.publish(reinstated("DOE"))
    await notify.until(2, "DOE", channel="webhook", state="delivered")
    assert len(silent.asked) == asked
    silent.released.set()
    await eventually(lambda: set(silent.asked) == {f"n{number}.silent.test" for number in range(LIMIT)})
