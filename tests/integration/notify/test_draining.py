"""A dispatcher that stops finishes its attempts while its successor waits: nothing arrives twice or out of order."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from muster_notify.adapters.addresses import AddressPolicy
from muster_notify.adapters.smtp import EmailSender
from muster_notify.adapters.vault import Vault
from muster_notify.adapters.webhooks import WebhookSender
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel
from muster_notify.settings import NotifySettings
from muster_notify.workers.dispatcher import Dispatcher
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.lease import LEASE_SECONDS
from muster_runtime.process.duties import Duties
from muster_runtime.service import Service
from tests.faults.proxy import PostgresProxy
from tests.integration.notify.conftest import START, Notify, contact, enrolled, reinstated
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver, Request
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

# How long an attempt takes: longer than an unrenewed lease lasts, and less than a drain.
ATTEMPT_SECONDS = LEASE_SECONDS + 0.7


def without_workers(settings: NotifySettings) -> Service:
    return replace(build(settings), workers=[])


@pytest.fixture
async def idle_notify(run_service: ServiceRunner, mail: MailServer) -> Notify:
    service = await run_service(
        without_workers, NotifySettings, smtp_port=mail.port, smtp_starttls=False, webhook_allow_private=True
    )
    service.clock.move(START)
    return Notify(service)


async def replaced(notify: Notify, channel: Channel, begun: Callable[[], Any], resolve: Any = None) -> None:
    """Stop a dispatcher once `begun`, while the next one waits, which then runs until all is delivered."""
    first, second = Duties(), Duties()
    _start(first, notify, "first", AddressPolicy(allow_private=True, **({"resolve": resolve} if resolve else {})))
    await eventually(begun)
    _start(second, notify, "second", AddressPolicy(allow_private=True))
    await first.stop()

    async def delivered() -> bool:
        delivered = "select every(state = 'delivered') from delivery where channel = $1"
        return await notify.service.admin.fetchval(delivered, channel) is True

    try:
        await eventually(delivered, timeout=30)
    finally:
        await second.stop()


def _start(duties: Duties, notify: Notify, name: str, policy: AddressPolicy, database: Database | None = None) -> None:
    runtime = replace(notify.service.runtime, database=database or notify.service.runtime.database)
    settings = runtime.settings.model_copy(update={"instance": name})
    assert isinstance(settings, NotifySettings)
    webhooks = WebhookSender(Vault(settings.secret_key), policy, settings.webhook_timeout_seconds)
    dispatcher = Dispatcher({Channel.EMAIL: EmailSender(settings), Channel.WEBHOOK: webhooks})
    duties.start(name, dispatcher.run(replace(runtime, settings=settings)))


def after(seconds: float) -> Callable[[], Awaitable[None]]:
    """A function that waits until this many seconds after its first call."""
    began: list[float] = []

    async def wait() -> None:
        began.append(time.monotonic())
        await eventually(lambda: time.monotonic() > began[0] + seconds, prompt=True)

    return wait


async def test_a_webhook_answered_during_the_drain_arrives_once(idle_notify: Notify, receiver: Receiver) -> None:
    answer = after(ATTEMPT_SECONDS)

    async def slow(_: Request) -> None:
        await answer()

    receiver.delay = slow
    await idle_notify.add_webhook(receiver.url)
    await idle_notify.service.publish(reinstated())
    await replaced(idle_notify, Channel.WEBHOOK, lambda: receiver.requests)
    assert len(receiver.requests) == 1


async def test_webhooks_stay_in_order_though_the_name_is_looked_up_slowly(
    idle_notify: Notify, receiver: Receiver
) -> None:
    answer, asked = after(ATTEMPT_SECONDS), asyncio.Event()

    async def resolve(_: str) -> Any:
        asked.set()
        await answer()
        return [ip_address("127.0.0.1")]

    await idle_notify.add_webhook(receiver.url)
    await idle_notify.service.publish(reinstated(), reinstated())
    await replaced(idle_notify, Channel.WEBHOOK, asked.is_set, resolve)
    assert receiver.sequences("NASA") == sorted(receiver.sequences("NASA"))


async def test_webhooks_stay_in_order_though_the_lease_is_lost_in_an_attempt(
    idle_notify: Notify, receiver: Receiver
) -> None:
    """The first dispatcher's database falls silent while a name is looked up, and the second one takes over."""
    service = idle_notify.service
    asked, answer = asyncio.Event(), asyncio.Event()

    async def resolve(_: str) -> Any:
        asked.set()
        await answer.wait()
        return [ip_address("127.0.0.1")]

    async def delivered() -> bool:
        return len(await idle_notify.deliveries(channel="webhook", state="delivered")) == 2

    async def email_is_recorded() -> bool:  # or its transaction, which falls silent too, holds the agency's lock
        return await service.admin.fetchval("select bool_or(attempts > 0) from delivery") is True

    await idle_notify.add_webhook(receiver.url)
    await service.publish(reinstated(), reinstated())
    first, second = Duties(), Duties()
    async with PostgresProxy(service.access.worker_dsn) as proxy:
        database = await Database(
            proxy.address_of(service.access.worker_dsn),
            "notify",
            service.clock,
            size=5,
            lock_timeout_seconds=2,
            schema=service.runtime.service.schema,
        ).open()
        _start(first, idle_notify, "first", AddressPolicy(allow_private=True, resolve=resolve), database)
        await eventually(asked.is_set)
        await eventually(email_is_recorded)
        proxy.fall_silent()
        _start(second, idle_notify, "second", AddressPolicy(allow_private=True))
        await eventually(delivered, timeout=30)
        answer.set()
        await first.stop()
        await second.stop()
        await database.close()
    assert receiver.sequences("NASA") == sorted(receiver.sequences("NASA"))


async def test_messages_of_a_drain_arrive_once(
    idle_notify: Notify, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight lanes wait for one connection to a slow server. The message that the end interrupts may arrive twice."""
    take = MailServer.handle_DATA

    async def slow(self: MailServer, *arguments: Any) -> str:
        answer = await take(self, *arguments)
        await after(0.7)()
        return answer

    monkeypatch.setattr(MailServer, "handle_DATA", slow)
    for agency in ("NASA", "DOE", "GSA", "EPA", "DOC", "DOI", "DOJ", "DOL"):
        await idle_notify.service.publish(contact(agency, f"a@{agency.lower()}.gov"), enrolled(agency))

    async def due() -> bool:
        assert await idle_notify.service.admin.fetchval("select count(*) from delivery") == 8
        return True

    await eventually(due)
    await replaced(idle_notify, Channel.EMAIL, lambda: mail.messages)
    assert sum(Counter(message["Message-ID"] for message in mail.messages).values()) <= 9
