"""The directory: the last that was said of each person of each agency, and whose e-mails go out because of it."""

from muster_notify.repository import directory
from tests.integration.notify.conftest import Notify, contact, contact_erased, enrolled, reinstated
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver
from tests.support.contexts import CONTEXT


async def test_of_several_events_about_a_person_the_last_one_counts(notify: Notify, mail: MailServer) -> None:
    """They may be in one batch."""
    recorded = [contact(email="old@nasa.example"), contact()]
    async with notify.service.runtime.database.write("NASA", context=CONTEXT) as uow:
        await directory.save_people(uow.connection, recorded, [each.role for each in recorded])
    await notify.service.publish(enrolled())
    await notify.until(state="delivered")
    assert mail.recipients == ["ann@nasa.example"]


async def test_an_erasure_concerns_a_person_of_its_own_agency_alone(notify: Notify, mail: MailServer) -> None:
    namesake = {"subject_ref": "con_NASA"}
    await notify.service.publish(contact(), contact("EPA", "eve@epa.example").model_copy(update=namesake))
    await notify.service.publish(contact_erased("EPA").model_copy(update=namesake))
    await notify.settle()
    await notify.service.publish(enrolled())
    await notify.until(state="delivered")
    assert mail.recipients == ["ann@nasa.example"]


async def test_a_new_contact_hastens_no_delivery_but_its_own_emails(
    notify: Notify, mail: MailServer, receiver: Receiver
) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 503
    await notify.service.publish(reinstated())
    await notify.waits("answered 503")
    await notify.waits("the agency has no administrator")
    await notify.service.publish(contact())
    await notify.until(state="delivered")
    assert (await notify.waits("answered 503"))["next_attempt_at"] == "2025-08-06T00:00:05Z"
    assert len(receiver.requests) == 1
