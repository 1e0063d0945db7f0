"""Assembles billing."""

from muster_billing.api import router
from muster_billing.schema import SCHEMA
from muster_billing.settings import BillingSettings
from muster_billing.subscriptions import REQUIRED_DEADLINES, deadlines, subscriptions
from muster_contracts.billing import BillingAuditSealed, TermStarted
from muster_runtime.service import Service


def build(settings: BillingSettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    settings = settings or BillingSettings()
    return Service(
        schema=SCHEMA,
        settings=settings,
        routers=[router],
        produces=[TermStarted.topic, BillingAuditSealed.topic],
        audit_sealed=BillingAuditSealed,
        subscriptions=subscriptions(settings.tariff, settings.time_zone),
        deadlines=deadlines(settings.tariff, settings.time_zone),
        required_deadlines=REQUIRED_DEADLINES,
    )
