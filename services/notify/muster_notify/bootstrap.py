"""Builds notify from its parts."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from muster_contracts.notify import NotifyAuditSealed, WebhookEndpointDisabled
from muster_notify.adapters.addresses import AddressPolicy
from muster_notify.adapters.smtp import EmailSender
from muster_notify.adapters.vault import Vault
from muster_notify.adapters.webhooks import WebhookSender
from muster_notify.api import operators_router, router
from muster_notify.domain.deliveries import Channel
from muster_notify.handlers.disabling import disabled_warnings
from muster_notify.repository import deliveries, purge, replays
from muster_notify.schema import SCHEMA
from muster_notify.settings import NotifySettings
from muster_notify.subscriptions import SUBSCRIPTIONS
from muster_notify.workers import replayer
from muster_notify.workers.dispatcher import Dispatcher
from muster_notify.workers.overdue import measure_overdue
from muster_notify.workers.rebuild import Directory
from muster_notify.workers.resealer import Resealer
from muster_runtime.database.connections import Connection
from muster_runtime.scheduling.retention import Retention
from muster_runtime.service import Alerted, Service, Worker


def build(settings: NotifySettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    settings = settings or NotifySettings()
    vault, policy = Vault(settings.secret_key), AddressPolicy(allow_private=settings.webhook_allow_private)
    dispatcher = Dispatcher(
        {
            Channel.EMAIL: EmailSender(settings),
            Channel.WEBHOOK: WebhookSender(vault, policy, settings.webhook_timeout_seconds),
        }
    )
    resealer = Resealer(vault)

    async def warnings(connection: Connection, now: datetime) -> Sequence[str]:
        await measure_overdue(connection, now)
        alerted = [*await disabled_warnings(connection), *dispatcher.warnings]
        return [*map(Alerted, alerted), *resealer.warnings]

    return Service(
        schema=SCHEMA,
        settings=settings,
        routers=[router, operators_router],
        produces=[WebhookEndpointDisabled.topic, NotifyAuditSealed.topic],
        audit_sealed=NotifyAuditSealed,
        subscriptions=SUBSCRIPTIONS,
        retentions=[make_retention(settings)],
        workers=[
            Worker("dispatcher", dispatcher.run, deliveries.find_next_due),
            Worker("replayer", replayer.run, replays.find_next_due),
            Worker("resealer", resealer.run),  # never due: keys change in real time
        ],
        projections={"directory": Directory.open},
        warnings=warnings,
    )


def make_retention(settings: NotifySettings) -> Retention:
    """How long a delivery is kept after it was delivered or failed."""
    keep = timedelta(days=settings.delivery_retention_days)
    return Retention("delivery", keep, purge.find_oldest_finish, purge.delete_finished)
