"""Quota thresholds, from usage to the mailbox: entitlements and notify run, and the mail server is real."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_contracts.entitlements import (
    AgencyQuotaThresholdCrossed,
    PersonErased,
    PersonRecorded,
    QuotaThresholdCrossed,
)
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.notify.conftest import Notify, contact
from tests.integration.notify.mail import MailServer
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


async def test_each_threshold_is_mailed_once_a_period_to_the_person_and_the_last_one_to_the_administrator(
    notify: Notify, mail: MailServer, run_service: ServiceRunner
) -> None:
    entitlements = Entitlements(await run_service(build, EntitlementsSettings))
    entitlements.service.clock.move(START)
    await notify.service.publish(contact())
    await entitlements.enroll(cap=5)
    for person in ("ada", "bob"):
        assert (await entitlements.assign(person)).status_code == 201
    await entitlements.import_file("email\nperson.cid@nasa.gov\n")  # the directory lacks people imported by file

    await eventually(lambda: notify.service.admin.fetchval("select count(*) = 3 from directory"))

    async def consume(person: str, *amounts: int) -> None:
        use: dict[str, Any] = {"subject": f"person.{person}@nasa.gov", "feature": "deep-research"}
        for number, amount in enumerate(amounts):
            key = f"{person}-{number}-{entitlements.service.clock.now()}"
            for _ in range(2):  # a repetition counts and announces nothing
                reply = await entitlements.post("usage/consume", {**use, "amount": amount}, key=key)
                assert reply.status_code == 200, reply.text

    def mailed() -> Counter[tuple[str, str]]:
        subjects = (str(message["Subject"]).removeprefix("Deep research: ") for message in mail.messages)
        found = zip(mail.recipients, subjects, strict=True)
        return Counter((recipient, subject) for recipient, subject in found if "quota" in subject)

    async def sent(*expected: tuple[str, str]) -> None:
        await eventually(lambda: mailed() >= Counter(expected))
        await notify.settle()
        assert mailed() == Counter(expected)
        mail.messages.clear()
        mail.recipients.clear()

    def used(percent: int) -> str:
        return f"you have used {percent}% of your quota"

    administrator = ("ann@nasa.example", "a seat has used up its quota")
    for instant in (START + timedelta(days=60), datetime(2025, 11, 1, tzinfo=UTC)):
        for service in (entitlements.service, notify.service):
            service.clock.move(instant)
        await consume("ada", 12, 1, 12)  # a use that crosses two thresholds announces both
        await consume("bob", 13)
        await consume("cid", 25)
        ada = [("person.ada@nasa.gov", used(percent)) for percent in (50, 80, 100)]
        await sent(*ada, ("person.bob@nasa.gov", used(50)), administrator, administrator)


async def test_who_is_erased_meanwhile_gets_no_more(notify: Notify, mail: MailServer) -> None:
    mail.refuse_message = "451 later"
    person = {"agency_id": "NASA", "subject_ref": "sub_1"}
    await notify.service.publish(PersonRecorded(**person, name="Ada", email="ada@nasa.gov"))
    await notify.settle()
    period = {"period_starts_at": START, "period_ends_at": START + timedelta(days=26)}
    crossed = QuotaThresholdCrossed(
        **person, feature="deep-research", threshold_percent=50, used=13, quota=25, **period
    )
    await notify.service.publish(crossed)
    assert (await notify.waits("the message was refused: 451"))["recipient"] == "sub_1"
    await notify.service.publish(PersonErased(**person))
    await notify.settle()
    notify.move(seconds=5)
    (delivery,) = await notify.until(state="failed")
    assert (delivery["last_error"], mail.messages) == ("the person no longer has a seat", [])


async def test_nobody_is_told_of_a_quota_whose_period_is_over(notify: Notify, mail: MailServer) -> None:
    person = {"agency_id": "NASA", "subject_ref": "sub_1"}
    await notify.service.publish(contact(), PersonRecorded(**person, name="Ada", email="ada@nasa.gov"))
    await notify.settle()
    end = START + timedelta(days=26)
    fact: dict[str, Any] = {"feature": "deep-research", "used": 25, "quota": 25, "threshold_percent": 100}
    period = {"period_starts_at": START, "period_ends_at": end}
    events = [
        QuotaThresholdCrossed(**person, **fact, **period),
        AgencyQuotaThresholdCrossed(agency_id="NASA", **fact, **period),
    ]
    before = end - timedelta(microseconds=1)
    notify.service.clock.move(before)
    await notify.service.publish(*events)
    await notify.until(3, state="delivered")
    notify.service.clock.move(end)
    await notify.service.publish(*events, time=before)
    await notify.until(3, state="failed")
    await notify.service.publish(*events)
    await notify.settle()
    assert len(await notify.deliveries()) == 6
    assert len(mail.messages) == 3
