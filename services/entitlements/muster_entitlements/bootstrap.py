"""Entitlements, put together."""

from pathlib import Path

from muster_contracts.entitlements import FeatureWindowOpened, PersonRecorded, SeatAssigned
from muster_entitlements.api import ROUTERS
from muster_entitlements.people import Directory
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.subscriptions import DEADLINES, SUBSCRIPTIONS
from muster_entitlements.worker import seat_file_worker
from muster_runtime.service import Service


def build(settings: EntitlementsSettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    settings = settings or EntitlementsSettings()
    return Service(
        name="entitlements",
        settings=settings,
        migrations=Path(__file__).parent / "migrations",
        routers=ROUTERS,
        produces=[SeatAssigned.topic, FeatureWindowOpened.topic, PersonRecorded.topic],
        subscriptions=SUBSCRIPTIONS,
        deadlines=DEADLINES,
        workers=[seat_file_worker(Directory(settings.subject_key.get_secret_value()))],
    )
