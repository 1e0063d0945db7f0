"""E-mails through a real SMTP server."""

from datetime import datetime, timedelta

import pytest

from muster_contracts import Event, Money
from muster_contracts.billing import RenewalOffered
from muster_contracts.enrollment import AgencySuspended
from muster_contracts.entitlements import TrialEndingSoon
from muster_notify.adapters.smtp import EmailSender
from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Delivery, Outcome
from muster_notify.settings import NotifySettings
from muster_runtime.database.transactions import Database
from tests.integration.notify.conftest import START, Notify, contact, enrolled, paid, reinstated
from tests.integration.notify.mail import MailServer, mail_server
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

SOON = START + timedelta(days=1)

CONTACT = """
insert into directory (agency_id, subject_ref, role, name, email)
values ('NASA', 'con_NASA', 'administrator', 'Ann Other', 'ann@nasa.example')
"""


async def test_the_administrator_is_told_once_in_text_and_html(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact(), enrolled())
    (delivery,) = await notify.until(state="delivered")
    (message,) = mail.messages
    assert mail.recipients == ["ann@nasa.example"]
    assert message["Subject"] == "The NASA is enrolled"
    assert message["Message-ID"] == f"<{delivery['delivery_id']}@muster.example>"
    assert message["Date"].datetime == START
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert (delivery["rule"], delivery["recipient"], delivery["attempts"]) == ("enrolled", "administrator", 1)


async def test_an_email_waits_until_its_contact_is_known_and_then_goes_at_once(
    notify: Notify, mail: MailServer
) -> None:
    await notify.service.publish(enrolled())
    delivery = await notify.waits("the agency has no administrator")
    assert delivery["next_attempt_at"] == "2025-08-06T00:00:05Z"
    await notify.service.publish(contact())
    await notify.until(state="delivered")
    assert len(mail.messages) == 1


async def test_a_contact_that_arrives_during_the_attempt_is_not_missed(
    notify: Notify, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock does not move: what waits for its next attempt waits forever."""
    send = EmailSender.send

    async def is_known() -> bool:
        return bool(await notify.service.admin.fetchval("select count(*) from directory"))

    async def sending(self: EmailSender, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        outcome = await send(self, database, delivery, now)
        if outcome.without_role:
            await notify.service.publish(contact())
            await eventually(is_known)
        return outcome

    monkeypatch.setattr(EmailSender, "send", sending)
    await notify.service.publish(enrolled())
    (delivery,) = await notify.until(state="delivered")
    assert (delivery["attempts"], len(mail.messages)) == (2, 1)


async def test_a_contact_that_arrives_during_the_last_attempt_stops_nothing(
    notify: Notify, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The e-mail has failed. An operator can retry it."""
    await notify.service.publish(enrolled())
    delivery = await notify.waits("the agency has no administrator")
    send = EmailSender.send

    async def sending(self: EmailSender, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        outcome = await send(self, database, delivery, now)
        if outcome.without_role:
            await notify.service.admin.execute(CONTACT)
        return outcome

    monkeypatch.setattr(EmailSender, "send", sending)
    await notify.service.admin.execute("update delivery set round_attempts = 19")
    notify.move(days=15)
    (failed,) = await notify.until(state="failed")
    assert (failed["delivery_id"], failed["next_attempt_at"]) == (delivery["delivery_id"], None)
    await notify.service.publish(reinstated())
    await notify.until(state="delivered")


async def test_a_repeated_event_makes_no_second_email(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact())
    (envelope,) = await notify.service.publish(enrolled())
    await notify.until(state="delivered")
    await notify.service.producer.put(envelope, enrolled())
    # As after the loss of the last sequence: only the intent's own key reveals the duplicate.
    await notify.service.admin.execute("delete from applied where topic = 'muster.enrollment.agency'")
    await notify.service.producer.put(envelope, enrolled())
    await notify.service.publish(reinstated())
    await notify.until(2, state="delivered")
    await notify.settle()
    assert [message["Subject"] for message in mail.messages] == [
        "The NASA is enrolled",
        "NASA's enrollment is active again",
    ]


async def test_a_temporary_refusal_is_tried_again_in_order(notify: Notify, mail: MailServer) -> None:
    mail.refuse_message = "451 later"
    await notify.service.publish(contact(), enrolled(), reinstated())
    await notify.waits("the message was refused: 451")
    mail.refuse_message = None
    notify.move(seconds=5)
    await notify.until(2, state="delivered")
    assert [message["Subject"][:11] for message in mail.messages] == ["The NASA is", "NASA's enro"]


async def test_a_permanent_refusal_fails_and_hides_what_the_server_says(notify: Notify, mail: MailServer) -> None:
    mail.refuse_recipient = "550 5.1.1 no mailbox ann of Ann Other here"
    await notify.service.publish(contact(), enrolled())
    (delivery,) = await notify.until(state="failed")
    assert delivery["last_error"] == "the recipient was refused: 550 5.1.1"
    assert delivery["next_attempt_at"] is None


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("refuse_recipient", "554 5.7.1 Relay access denied"),
        ("refuse_recipient", "550 5.1.8 Sender address rejected: Domain not found"),
        ("refuse_message", "550 5.7.60 Client does not have permissions to send as this sender"),
    ],
)
async def test_a_refusal_of_us_is_tried_again_whichever_step_it_answers(
    notify: Notify, mail: MailServer, step: str, answer: str
) -> None:
    setattr(mail, step, answer)
    await notify.service.publish(contact(), enrolled())
    await notify.waits(" ".join(answer.split()[:2]))
    setattr(mail, step, None)
    notify.move(seconds=5)
    await notify.until(state="delivered")


async def test_a_refusal_of_us_is_final_after_about_32_hours_so_that_the_next_one_goes_out(
    notify: Notify, mail: MailServer
) -> None:
    mail.refuse_recipient = "554 5.7.1 Relay access denied"
    await notify.service.publish(contact(), enrolled(), reinstated())
    await notify.fails("the recipient was refused: 554 5.7.1", 7)
    notify.move(hours=14)
    assert timedelta(hours=31) < notify.service.clock.now() - START < timedelta(hours=32)
    (failed,) = await notify.until(state="failed")
    assert (failed["rule"], failed["attempts"]) == ("enrolled", 8)
    assert (await notify.waits("the recipient was refused: 554 5.7.1"))["rule"] == "reinstated"


async def test_one_connection_serves_many_emails(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact(), enrolled(), reinstated(), paid())
    await notify.until(3, state="delivered")
    assert mail.connections == 1


async def test_a_mail_server_that_is_down_is_waited_for(run_service: ServiceRunner) -> None:
    async with mail_server(MailServer()) as server:
        port = server.port
    notify = Notify(await run_service(build, NotifySettings, smtp_port=port, smtp_starttls=False))
    notify.service.clock.move(START)
    await notify.service.publish(contact(), enrolled())
    await notify.waits("no connection to the mail server")
    async with mail_server(MailServer(port)) as server:
        notify.move(seconds=5)
        await notify.until(state="delivered")
        assert len(server.messages) == 1


async def test_nothing_is_sent_in_clear_where_tls_is_asked_for(run_service: ServiceRunner, mail: MailServer) -> None:
    notify = Notify(await run_service(build, NotifySettings, smtp_port=mail.port))
    await notify.service.publish(contact(), enrolled())
    await notify.waits("no connection to the mail server")
    assert mail.messages == []


@pytest.mark.parametrize(
    ("event", "until"),
    [
        (TrialEndingSoon(agency_id="NASA", window_id="win_1", feature="voice", ends_at=SOON, days_left=1), "ends_at"),
        (
            RenewalOffered(
                agency_id="NASA",
                term_id="term_1",
                renewal_id="ren_1",
                price=Money(amount_minor=100, currency="USD"),
                next_starts_at=SOON,
                next_ends_at=SOON + timedelta(days=365),
                decide_by=SOON,
            ),
            "decide_by",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_email_about_what_comes_is_not_sent_once_that_is_past(
    notify: Notify, mail: MailServer, event: Event, until: str
) -> None:
    mail.refuse_message = "451 later"
    await notify.service.publish(contact(), event)
    await notify.waits("the message was refused: 451")
    mail.refuse_message = None
    notify.service.clock.move(SOON)
    (failed,) = await notify.until(state="failed")
    assert (failed["last_error"], mail.messages) == (f"too late: its {until} is past", [])


async def test_an_invalid_address_fails_its_email_alone(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(contact("NASA", "not an address"), enrolled("NASA"))
    await notify.service.publish(contact("EPA", "eve@epa.example"), enrolled("EPA"))
    (delivery,) = await notify.until(state="failed")
    assert "not valid" in delivery["last_error"]
    await notify.until(1, "EPA", state="delivered")
    assert mail.recipients == ["eve@epa.example"]


async def test_an_invalid_address_keeps_an_email_from_no_other_contact(notify: Notify, mail: MailServer) -> None:
    other = contact("NASA", "not an address").model_copy(update={"subject_ref": "con_other"})
    await notify.service.publish(contact(), other, enrolled())
    (delivery,) = await notify.until(state="delivered")
    assert mail.recipients == ["ann@nasa.example"]
    found = (await notify.get(f"/v1/agencies/NASA/deliveries/{delivery['delivery_id']}")).json()
    assert [attempt["detail"] for attempt in found["log"]] == ["1 of 2 not reached"]


async def test_the_operators_are_told_at_their_own_address(notify: Notify, mail: MailServer) -> None:
    await notify.service.publish(
        contact(), AgencySuspended(agency_id="NASA", enrollment_id="enr_1", reason="operator", suspended_at=START)
    )
    await notify.until(2, state="delivered")
    assert sorted(mail.recipients) == ["ann@nasa.example", "muster@muster.example"]


async def test_an_email_that_nobody_can_get_fails_after_fourteen_days(notify: Notify) -> None:
    await notify.service.publish(enrolled())
    await notify.fails("the agency has no administrator", 19)
    notify.move(days=1)
    (delivery,) = await notify.until(state="failed")
    assert (delivery["attempts"], delivery["last_error"]) == (20, "the agency has no administrator")
