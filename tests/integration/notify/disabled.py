"""An endpoint that is disabled, and the requests that enable it and replay what it missed."""

from typing import Any

from tests.integration.notify.conftest import START, Notify, reinstated
from tests.integration.notify.receiver import Receiver
from tests.support.eventually import eventually

# Not the announcement itself, which is a public event too.
TYPES = ["muster.enrollment.AgencyReinstated.v1", "muster.billing.InvoicePaid.v1"]


async def disabled(notify: Notify, receiver: Receiver, agency_id: str = "NASA") -> dict[str, Any]:
    """An endpoint whose receiver answered 410 to a first event of NASA's; the receiver works again."""
    webhook = await notify.add_webhook(receiver.url, agency_id, event_types=TYPES)
    receiver.answer = lambda _: 410
    await notify.service.publish(reinstated())
    await notify.until(channel="webhook", state="failed")
    receiver.answer = lambda _: 204
    receiver.requests.clear()
    return webhook


async def enable(notify: Notify, webhook: dict[str, Any]) -> Any:
    return await notify.service.client.post(
        f"/v1/agencies/{webhook['agency_id']}/webhooks/{webhook['webhook_id']}/enable"
    )


async def replay(notify: Notify, webhook: dict[str, Any], since: str = START.isoformat()) -> Any:
    return await notify.service.client.post(
        f"/v1/agencies/{webhook['agency_id']}/webhooks/{webhook['webhook_id']}/replays", json={"since": since}
    )


async def replayed(notify: Notify, location: str) -> dict[str, Any]:
    """A replay, once it is over."""

    async def over() -> dict[str, Any] | None:
        found: dict[str, Any] = (await notify.get(location)).json()
        return found if found["state"] != "running" else None

    return dict(await eventually(over))
