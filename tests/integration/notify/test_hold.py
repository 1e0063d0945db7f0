"""After a restore, nothing is sent until an operator releases the deadlines: meanwhile, lost commands are repeated."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from muster_notify.bootstrap import build
from muster_notify.domain.deliveries import Channel
from muster_notify.settings import NotifySettings
from muster_notify.workers.clearance import Clearance
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.notify.conftest import START, Notify, contact, enrolled
from tests.integration.notify.mail import MailServer
from tests.integration.notify.receiver import Receiver
from tests.support.eventually import eventually
from tests.support.failover import fail_over, finish_comparison
from tests.support.services import ServiceRunner

WHY = {"reason": "restored from the backup of Monday"}


async def test_nothing_is_sent_until_the_deadlines_are_released_and_then_not_to_what_was_deleted_meanwhile(
    run_service: ServiceRunner, mail: MailServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Mapping[Channel, Collection[str]]] = []

    async def channels(clearance: Clearance, *arguments: Any, **options: Any) -> Mapping[Channel, Collection[str]]:
        looks.append(await find(clearance, *arguments, **options))
        return looks[-1]

    find = Clearance.channels
    monkeypatch.setattr(Clearance, "channels", channels)
    settings: dict[str, Any] = {"smtp_port": mail.port, "smtp_starttls": False, "webhook_allow_private": True}
    notify = Notify(await run_service(build, NotifySettings, roles=frozenset({Role.API}), **settings))
    clock = notify.service.clock
    clock.move(START)
    (await notify.service.client.post("/v1/epoch", json=WHY)).raise_for_status()
    restored = await notify.add_webhook(receiver.url)
    await run_service(
        build, NotifySettings, roles=ALL_ROLES - {Role.API}, beside=notify.service, clock=clock, **settings
    )
    await notify.service.publish(contact(), enrolled())
    await notify.until(2, state="pending")
    notify.move(hours=1)
    looked = len(looks)
    await eventually(lambda: len(looks) > looked + 3)
    assert not any(looks)
    assert (mail.messages, receiver.requests) == ([], [])
    await notify.get("/health/ready")
    assert REGISTRY.get_sample_value("muster_delivery_overdue_seconds", {"service": "notify"}) == 0

    deleted = await notify.service.client.delete(f"/v1/agencies/NASA/webhooks/{restored['webhook_id']}")
    assert deleted.status_code == 204, deleted.text
    (await notify.service.client.post("/v1/deadlines/release", json=WHY)).raise_for_status()
    await notify.until(channel="email", state="delivered")
    (failed,) = await notify.until(channel="webhook", state="failed")
    assert (failed["last_error"], receiver.requests) == ("the endpoint is deleted", [])


async def test_after_a_failover_nothing_is_sent_until_the_relay_has_compared_but_the_alert_can_fire(
    run_service: ServiceRunner, mail: MailServer
) -> None:
    settings: dict[str, Any] = {"smtp_port": mail.port, "smtp_starttls": False}
    notify = Notify(await run_service(build, NotifySettings, roles=ALL_ROLES - {Role.RELAY}, **settings))
    notify.service.clock.move(START)
    await fail_over(notify.service.admin)
    await notify.service.publish(contact(), enrolled())
    await notify.until(state="pending")
    notify.move(hours=1)
    await notify.get("/health/ready")
    assert REGISTRY.get_sample_value("muster_delivery_overdue_seconds", {"service": "notify"}) == 3600
    assert mail.messages == []
    await finish_comparison(notify.service.admin)
    await notify.until(state="delivered")
