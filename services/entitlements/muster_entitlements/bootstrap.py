"""Entitlements, put together."""

from pathlib import Path

from muster_contracts.entitlements import FeatureWindowOpened, PersonRecorded, SeatAssigned
from muster_entitlements.api import router
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.subscriptions import DEADLINES, SUBSCRIPTIONS
from muster_runtime.service import Service


def build(settings: EntitlementsSettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    return Service(
        name="entitlements",
        settings=settings or EntitlementsSettings(),
        migrations=Path(__file__).parents[1] / "migrations",
        routers=[router],
        produces=[SeatAssigned.topic, FeatureWindowOpened.topic, PersonRecorded.topic],
        subscriptions=SUBSCRIPTIONS,
        deadlines=DEADLINES,
    )
