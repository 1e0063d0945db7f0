"""Builds entitlements from its parts."""

from datetime import datetime, timedelta
from functools import partial

from muster_contracts.entitlements import (
    AgencyAccess,
    EntitlementsAuditSealed,
    FeatureCatalogPublished,
    FeatureUsed,
    FeatureWindowOpened,
    PersonRecorded,
    SeatAssigned,
)
from muster_entitlements.api import ROUTERS
from muster_entitlements.domain import adoption as adoption_rules
from muster_entitlements.domain import quotas
from muster_entitlements.domain.people import Directory
from muster_entitlements.domain.usage import PARKED_FOR
from muster_entitlements.handlers import parked_usage
from muster_entitlements.handlers.rollouts import WAITED_FOR
from muster_entitlements.repository import (
    adoption,
    catalogs,
    facts,
    operations,
    pools,
    purge,
    subject_key,
    usage_intake,
)
from muster_entitlements.schema import SCHEMA
from muster_entitlements.settings import EntitlementsSettings
from muster_entitlements.subscriptions import DEADLINES, DEADLINES_OF_USE, REQUIRED_DEADLINES, SUBSCRIPTIONS
from muster_entitlements.workers import catalog_rollout, usage, usage_partitions
from muster_entitlements.workers.rebuild import SeatsInUse
from muster_entitlements.workers.seat_files import SeatFiles
from muster_entitlements.workers.snapshots import Snapshot
from muster_runtime.database.transactions import Connection
from muster_runtime.scheduling.news import Intake
from muster_runtime.scheduling.retention import Retention, rows_since
from muster_runtime.service import Service, Worker


def build(settings: EntitlementsSettings | None = None) -> Service:
    """The service; None reads its settings from the environment."""
    settings = settings or EntitlementsSettings()
    directory = Directory(settings.subject_key.get_secret_value())
    return Service(
        schema=SCHEMA,
        settings=settings,
        routers=ROUTERS,
        state={"directory": directory},
        produces=[
            SeatAssigned.topic,
            FeatureWindowOpened.topic,
            FeatureCatalogPublished.topic,
            PersonRecorded.topic,
            AgencyAccess.topic,
            EntitlementsAuditSealed.topic,
        ],
        audit_sealed=EntitlementsAuditSealed,
        subscriptions=SUBSCRIPTIONS,
        deadlines=DEADLINES,
        required_deadlines=REQUIRED_DEADLINES,
        retentions=[
            *make_retentions(settings),
            Retention("usage_parked", PARKED_FOR, usage_intake.find_oldest_parked, usage_intake.delete_old_parked),
            rows_since("quota_use", "ends_at", quotas.KEPT_FOR),
            rows_since("quota_event", "ends_at", quotas.KEPT_FOR),
            Retention("adoption_day", adoption_rules.KEPT_FOR, adoption.find_oldest_day, adoption.delete_old_days),
        ],
        workers=[
            Worker("seat-files", SeatFiles(directory).run, operations.find_oldest_wait),
            Worker("catalog-rollout", catalog_rollout.run, partial(catalogs.find_oldest_wait, kinds=WAITED_FOR)),
            Worker("usage-intake", usage.run, usage_intake.find_oldest_deferred),
            Worker("usage-partitions", usage_partitions.run),  # never due: the default partition takes what has none
        ],
        intake=Intake(
            topics=[FeatureUsed.topic],
            offsets=usage_intake.list_offsets,
            deferred=usage_intake.list_deferred,
            awaited_by=DEADLINES_OF_USE,
        ),
        warnings=_warnings,
        projections={"seats-in-use": SeatsInUse.open, "snapshot": Snapshot.open},
        epoch_raised=pools.save_revisions_of_epoch,
        identity=partial(_check_subject_key, directory.fingerprint),
    )


def make_retentions(settings: EntitlementsSettings) -> list[Retention]:
    """How long to keep earlier versions of pools, windows, seats, and quotas, and the events behind what is over."""
    days = settings.history_retention_days or settings.audit_retention_days
    if days is None:
        return []
    keep = timedelta(days=days)
    return [
        *(
            Retention(history, keep, partial(purge.find_oldest_end, history), partial(purge.delete_ended, history))
            for history in purge.HISTORIES
        ),
        Retention("fact_event", keep, facts.find_oldest_over, facts.delete_over),
    ]


async def _warnings(connection: Connection, _now: datetime) -> list[str]:
    await catalog_rollout.count_waiting_agencies(connection)
    return await parked_usage.warnings(connection)


async def _check_subject_key(fingerprint: str, connection: Connection) -> str | None:
    """Why the service must not start with its subject key; None if it may."""
    if await subject_key.save_first_fingerprint(connection, fingerprint) == fingerprint:
        return None
    return (
        "MUSTER_SUBJECT_KEY is not the key from the first start: it would give everyone a second reference and seat. "
        "Restore that key"
    )
