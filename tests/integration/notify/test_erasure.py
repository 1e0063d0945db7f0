"""Who is erased gets no e-mail, even if notify or a server was down meanwhile."""

from datetime import datetime
from functools import partial

import pytest

from muster_contracts.enrollment import ContactErased
from muster_notify.adapters.smtp import EmailSender
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Delivery, Outcome
from muster_notify.settings import NotifySettings
from muster_runtime.database.transactions import Database
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from muster_runtime.scheduling import news
from tests.integration.notify.conftest import START, Notify, contact, contact_erased, enrolled, paid, reinstated
from tests.integration.notify.mail import MailServer
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner


async def test_who_is_erased_gets_nothing_more_and_is_kept_nowhere(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact(), enrolled())
    await notify.until(state="delivered")
    await notify.service.publish(contact_erased())
    await notify.settle()
    await notify.service.publish(paid())
    await notify.waits("the agency has no administrator")
    assert len(mail.messages) == 1
    tables = await notify.service.admin.fetch(
        "select table_name from information_schema.tables where table_schema = 'notify'"
    )
    for (table,) in tables:
        rows = await notify.service.admin.fetch(f"select t::text from {table} as t")
        assert not [row for row in rows if "ann@" in row[0] or "Ann" in row[0]]


async def test_who_is_erased_while_an_email_waits_for_the_mail_server_gets_nothing(
    notify: Notify, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail.open.clear()
    begun: list[str] = []
    send = EmailSender.send

    async def noted(sender: EmailSender, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        begun.append(delivery.agency_id)
        return await send(sender, database, delivery, now)

    monkeypatch.setattr(EmailSender, "send", noted)
    await notify.service.publish(contact("DOE", "eve@doe.example"), contact())
    await notify.service.publish(reinstated("DOE"))
    await eventually(lambda: begun)
    await notify.service.publish(reinstated())
    await eventually(lambda: len(begun) == 2)
    await notify.service.publish(contact_erased())

    async def is_erased() -> bool:
        query = "select not exists (select from directory where agency_id = 'NASA')"
        return bool(await notify.service.admin.fetchval(query))

    await eventually(is_erased)
    mail.open.set()
    await notify.waits("the agency has no administrator")
    assert mail.recipients == ["eve@doe.example"]


async def test_who_is_erased_while_notify_is_down_gets_nothing(run_service: ServiceRunner, mail: MailServer) -> None:
    start = partial(run_service, build, NotifySettings, smtp_port=mail.port, smtp_starttls=False)
    notify = Notify(await start(roles=frozenset({Role.API})))
    notify.service.clock.move(START)
    async with running(notify.service.runtime.service, frozenset({Role.CONSUMER}), notify.service.clock):
        await notify.service.publish(contact(), contact("DOE", "eve@doe.example"), enrolled())
        await notify.until(state="pending")
    await notify.service.publish(contact_erased())
    sending = await start(roles=frozenset({Role.WORKER}), beside=notify.service, clock=notify.service.clock)
    await eventually(lambda: waits_for_the_directory(sending))
    assert [delivery["attempts"] for delivery in await notify.deliveries()] == [0]
    await start(roles=frozenset({Role.CONSUMER}), beside=notify.service, clock=notify.service.clock)
    await notify.waits("the agency has no administrator")
    await notify.service.publish(enrolled("DOE"))
    await notify.until(1, "DOE", state="delivered")
    assert mail.recipients == ["eve@doe.example"]
    assert not await waits_for_the_directory(sending)


async def test_who_is_erased_while_postgres_does_not_answer_gets_nothing(
    run_service: ServiceRunner, mail: MailServer
) -> None:
    """The dispatcher's lease expires meanwhile."""
    start = partial(run_service, build, NotifySettings, smtp_port=mail.port, smtp_starttls=False)
    notify = Notify(await start(roles=frozenset({Role.API})))
    notify.service.clock.move(START)
    sending = await start(roles=frozenset({Role.WORKER}), beside=notify.service, clock=notify.service.clock)
    mail.refuse_message = "451 later"
    async with running(notify.service.runtime.service, frozenset({Role.CONSUMER}), notify.service.clock):
        await notify.service.publish(contact(), enrolled())
        await notify.waits("the message was refused: 451")
    admin = notify.service.admin
    async with admin.transaction():
        await admin.execute("lock table lease")
        await notify.service.publish(contact_erased())
        mail.refuse_message = None
        await eventually(lambda: admin.fetchval("select expires_at < clock_timestamp() from lease"))
    await eventually(lambda: waits_for_the_directory(sending))
    notify.move(seconds=5)
    await start(roles=frozenset({Role.CONSUMER}), beside=notify.service, clock=notify.service.clock)
    await notify.waits("the agency has no administrator", attempts=2)
    assert mail.recipients == []


async def test_emails_are_sent_after_the_sandboxs_clock_was_set_back(
    run_service: ServiceRunner, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new stack's clock reads the system's time until its year begins; Kafka has not answered yet."""
    monkeypatch.setattr(news, "PATIENCE_SECONDS", 0)
    notify = Notify(await run_service(build, NotifySettings, smtp_port=mail.port, smtp_starttls=False))
    kafka_is_silent = "no e-mail is sent: Kafka cannot be reached"
    await eventually(lambda: warns(notify.service, kafka_is_silent))
    notify.service.clock.move(START)
    monkeypatch.setattr(news, "PATIENCE_SECONDS", 10)
    await notify.service.publish(contact(), enrolled())
    await notify.until(state="delivered")


async def test_nobody_of_an_agency_gets_an_email_while_an_erasure_may_be_parked(
    run_service: ServiceRunner, mail: MailServer
) -> None:
    start = partial(run_service, build, NotifySettings, smtp_port=mail.port, smtp_starttls=False)
    notify = Notify(await start(roles=frozenset({Role.API, Role.CONSUMER})))
    service = notify.service
    service.clock.move(START)
    nasa, _ = await service.publish(contact(), contact("DOE", "eve@doe.example"))
    await service.publish(enrolled(), enrolled("DOE"))
    await notify.until(state="pending")
    await notify.until(1, "DOE", state="pending")
    newer = nasa._replace(type="muster.enrollment.ContactRecorded.v2", sequence=2)
    await service.producer.put(newer, contact())
    await service.producer.put(nasa._replace(type=ContactErased.event_type, sequence=3), contact_erased())
    await eventually(lambda: service.admin.fetchval("select count(*) = 2 from parked_event"))

    sending = await start(roles=frozenset({Role.WORKER}), beside=service, clock=service.clock)
    await notify.until(1, "DOE", state="delivered")
    waits = f"e-mails wait: their agency's stream of {ContactErased.topic} is parked (agencies: 1)"
    await eventually(lambda: warns(sending, waits))
    assert [delivery["attempts"] for delivery in await notify.deliveries()] == [0]
    parked = f"/v1/parked/{ContactErased.topic}/NASA"
    first = (await notify.get(parked)).json()["first_records"][0]
    discarded = {"reason": "worthless", "records": [{name: first[name] for name in ("partition", "offset")}]}
    (await service.client.post(f"{parked}/discard", json=discarded)).raise_for_status()
    (await service.client.post(f"{parked}/replay")).raise_for_status()
    await notify.waits("the agency has no administrator")
    assert mail.recipients == ["eve@doe.example"]
    await eventually(lambda: warns_of_nothing(sending))


async def waits_for_the_directory(sending: RunningService) -> bool:
    return await warns(sending, "no e-mail is sent: muster.enrollment.directory[")


async def warns(service: RunningService, beginning: str) -> bool:
    return any(warning.startswith(beginning) for warning in await warnings(service))


async def warns_of_nothing(service: RunningService) -> bool:
    return not await warnings(service)


async def warnings(service: RunningService) -> list[str]:
    found: list[str] = (await service.client.get("/health/ready")).json()["warnings"]
    return found
