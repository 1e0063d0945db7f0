"""The command on a delivery: retry it."""

from muster_notify import queries
from muster_notify.commands import RetryDelivery
from muster_notify.domain.deliveries import Channel, DeliveryState
from muster_notify.domain.endpoints import WebhookState
from muster_notify.errors import AlreadyDelivered, DeliveryReplayed, DeliveryWaits, RecipientNotEnabled
from muster_notify.replies import DeliveryLogReply
from muster_notify.repository import deliveries, endpoints
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit


async def retry_delivery(uow: UnitOfWork, command: RetryDelivery) -> DeliveryLogReply:
    """Attempt a delivery now, or once the earlier ones in its lane are done.

    Raises DeliveryUnknown, AlreadyDelivered, DeliveryWaits, DeliveryReplayed, or RecipientNotEnabled.
    """
    before = await queries.find_delivery(uow.connection, command.agency_id, command.delivery_id, tenant=command.tenant)
    if before.state is DeliveryState.DELIVERED:
        raise AlreadyDelivered(before.delivery_id)
    if before.state is DeliveryState.PENDING and before.next_attempt_at is None:
        raise DeliveryWaits(before.delivery_id, before.recipient)
    if before.channel is Channel.WEBHOOK:
        await _require_enabled(uow, before, command.tenant)
    if before.state is DeliveryState.PENDING:
        await deliveries.save_as_due(uow.connection, before.delivery_id, uow.now)
    else:
        await deliveries.save_as_pending(uow.connection, [before.delivery_id])
        await deliveries.save_order(uow.connection, [(before.agency_id, before.recipient)], uow.now)
    audit.record(
        uow,
        command="RetryDelivery",
        agency_id=command.agency_id,
        subject=before.delivery_id,
        before={"state": before.state, "attempts": before.attempts},
        after={"state": DeliveryState.PENDING},
    )
    uow.wake()
    return await queries.find_delivery(uow.connection, command.agency_id, command.delivery_id, tenant=command.tenant)


async def _require_enabled(uow: UnitOfWork, delivery: DeliveryLogReply, tenant: str) -> None:
    webhook_id = delivery.recipient
    state, replay_id = await endpoints.find_state_and_replay(
        uow.connection, webhook_id, tenant=tenant, agency_id=delivery.agency_id
    )
    if replay_id is not None:
        raise DeliveryReplayed(webhook_id, replay_id)
    if state is not WebhookState.ENABLED:
        can_be_enabled = state is WebhookState.DISABLED
        raise RecipientNotEnabled(delivery.delivery_id, webhook_id, state, can_be_enabled=can_be_enabled)
