"""Finished deliveries are deleted when they expire, with their attempts, and are not created again."""

from datetime import timedelta

from muster_notify.bootstrap import make_retention
from muster_notify.repository import purge
from muster_notify.settings import NotifySettings
from muster_runtime.scheduling.retention import BATCH_ROWS
from tests.integration.notify.conftest import START, Notify, contact, enrolled, paid, reinstated
from tests.integration.notify.mail import MailServer
from tests.support.eventually import eventually

SETTINGS = NotifySettings(environment="sandbox")
DAYS = SETTINGS.delivery_retention_days


async def test_a_delivery_is_deleted_with_its_attempts_and_is_not_made_again(notify: Notify, mail: MailServer) -> None:
    admin = notify.service.admin
    await notify.service.publish(contact())
    (envelope,) = await notify.service.publish(enrolled())
    await notify.until(state="delivered")
    mail.refuse_message = "451 later"
    await notify.service.publish(reinstated())
    await notify.waits("the message was refused: 451")
    mail.refuse_message = "554 for good"
    notify.move(days=DAYS - 1)
    (given_up,) = await notify.until(state="failed")
    assert given_up["attempts"] == 2
    assert len(await notify.deliveries()) == 2
    notify.move(days=1)

    async def one_left() -> bool:
        return len(await notify.deliveries()) == 1

    await eventually(one_left)
    assert await admin.fetchval("select count(*) from delivery") == 1
    assert await admin.fetchval("select count(*) from delivery_attempt") == 2  # of the one that was given up later
    assert (await notify.deliveries())[0]["delivery_id"] == given_up["delivery_id"]

    # As when the topics are read from their beginning.
    mail.refuse_message = None
    await admin.execute("delete from applied where topic = 'muster.enrollment.agency'")
    await notify.service.producer.put(envelope, enrolled())
    await notify.service.publish(paid())
    await eventually(lambda: len(mail.messages) == 2)
    await notify.settle()
    assert mail.messages[0]["Subject"] == "The NASA is enrolled"
    assert len(mail.messages) == 2
    metrics = (await notify.get("/metrics")).text
    assert 'muster_purged_total{service="notify",table="delivery"} ' in metrics


async def test_deliveries_are_purged_in_batches_and_one_that_is_retried_stays(notify: Notify, mail: MailServer) -> None:
    admin = notify.service.admin
    await notify.service.publish(contact(), *(reinstated() for _ in range(12)))
    await notify.until(12, state="delivered")
    retention = make_retention(SETTINGS)
    retried = await admin.fetchval("select id from delivery order by position limit 1")
    async with notify.service.runtime.database.pool.acquire() as worker:
        oldest = await retention.oldest(worker)
        assert oldest == START
        async with admin.transaction():
            await admin.execute("select 1 from delivery where id = $1 for update", retried)
            assert await retention.purge(worker, START, 5) == 5
            assert await retention.purge(worker, START, BATCH_ROWS) == 6
            assert await retention.purge(worker, START, BATCH_ROWS) == 0
        assert [row["id"] for row in await admin.fetch("select id from delivery")] == [retried]
        assert await admin.fetchval("select count(*) from delivery_attempt") == 1
        assert await retention.purge(worker, START - timedelta(microseconds=1), BATCH_ROWS) == 0
        assert await purge.find_purged_before(worker) == START
        later = START + timedelta(hours=1)
        await admin.execute("update delivery_purge set before = $1", later)  # later ones were deleted meanwhile
        assert await retention.purge(worker, START, BATCH_ROWS) == 1
        assert await purge.find_purged_before(worker) == later
