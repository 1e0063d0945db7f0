"""Each service's HTTP application, for tests of what it decides before it uses Postgres or Kafka."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from muster_billing.bootstrap import build as build_billing
from muster_billing.settings import BillingSettings
from muster_enrollment.bootstrap import build as build_enrollment
from muster_enrollment.settings import EnrollmentSettings
from muster_entitlements.bootstrap import build as build_entitlements
from muster_entitlements.settings import EntitlementsSettings
from muster_notify.bootstrap import build as build_notify
from muster_notify.settings import NotifySettings
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from muster_runtime.database.wakeup import Wakeup
from muster_runtime.http.health import Health
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from muster_runtime.messaging.backlog import Backlog
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.process.running import application
from muster_runtime.service import Runtime, Service
from muster_runtime.settings import Settings
from tests.support.services import ISSUER

BUILDERS: dict[str, tuple[Callable[..., Service], type[Settings]]] = {
    "enrollment": (build_enrollment, EnrollmentSettings),
    "entitlements": (build_entitlements, EntitlementsSettings),
    "billing": (build_billing, BillingSettings),
    "notify": (build_notify, NotifySettings),
}


def whole_application(name: str, jwks: Path = Path("no-keys.json")) -> FastAPI:
    """The application that a process of the service serves, including a sandbox's routes."""
    build, settings_class = BUILDERS[name]
    settings = settings_class(environment="sandbox", oidc_issuer=ISSUER, oidc_jwks=str(jwks))
    service = build(settings)
    clock = SystemClock()
    database = Database("", name, clock)
    kafka, backlog = KafkaConnection(settings), Backlog(settings.outbox_rows)
    runtime = Runtime(service, settings, clock, database, Wakeup(clock), kafka, backlog)
    subscriptions = Subscriptions(service.subscriptions, service=name, group=name, clock=clock)
    keys, roles = KeySource(str(jwks)), Roles.load("")
    return application(runtime, database, subscriptions, _healthy, keys, roles, _no_state, with_api=True)


async def _healthy() -> Health:
    return Health(ready=True, serving=True)


async def _no_state() -> dict[str, object]:
    return {}
