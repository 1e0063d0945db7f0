"""Notify, put together."""

from pathlib import Path

from muster_contracts.notify import WebhookEndpointDisabled
from muster_notify import replayer
from muster_notify.addresses import AddressPolicy
from muster_notify.api import make_router, operators_router
from muster_notify.disabling import warnings
from muster_notify.dispatcher import Dispatcher
from muster_notify.domain import Channel
from muster_notify.repository import deliveries, purge, replays
from muster_notify.settings import NotifySettings
from muster_notify.smtp import EmailSender
from muster_notify.subscriptions import SUBSCRIPTIONS
from muster_notify.vault import Vault
from muster_notify.webhooks import WebhookSender
from muster_runtime.service import Service, Worker


def build(settings: NotifySettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    settings = settings or NotifySettings()
    vault = Vault(settings.secret_key)
    policy = AddressPolicy(allow_private=settings.webhook_allow_private)
    dispatcher = Dispatcher(
        {
            Channel.EMAIL: EmailSender(settings),
            Channel.WEBHOOK: WebhookSender(vault, policy, settings.webhook_timeout_seconds),
        }
    )
    return Service(
        name="notify",
        settings=settings,
        migrations=Path(__file__).parent / "migrations",
        routers=[make_router(vault, policy), operators_router],
        produces=[WebhookEndpointDisabled.topic],
        subscriptions=SUBSCRIPTIONS,
        retentions=[purge.retention(settings.delivery_retention_days)],
        workers=[
            Worker("dispatcher", dispatcher.run, deliveries.next_due),
            Worker("replayer", replayer.run, replays.next_due),
        ],
        warnings=warnings,
    )
