"""KEDA adds a consumer while its records wait, and removes it afterward."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import yaml

from muster_contracts import SERVICES, topics
from muster_operator.access.acls import Acl, Kind, Operation, principal_of
from muster_operator.access.administrator import Administrator
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import HOME, MUSTER, Kube, Thing, secret
from tests.cluster.release import Release, values
from tests.cluster.servers import Servers
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

RESOURCES = HOME / "keda" / "resources.yaml"
METRICS = "apiservice/v1beta1.external.metrics.k8s.io"

USER = "keda"
AUTHENTICATION = "muster-kafka"
SCALING = {
    "enabled": True,
    "maxReplicas": 2,
    "lag": 5,
    "pollingSeconds": 5,
    "stabilizationSeconds": 15,
    "authentication": AUTHENTICATION,
}

ADDED_SECONDS = 120
REMOVED_SECONDS = 240


async def test_a_consumer_is_added_while_its_records_wait_and_removed_afterward(
    kube: Kube, installed: Ready, traffic: Traffic
) -> None:
    servers, release = installed.servers, Release(kube)
    await kube.apply(_resources())
    await kube.rolled_out("keda")
    await kube.kubectl("wait", "--for=condition=Available", "--timeout=60s", METRICS)
    await _admit_keda(kube, servers)
    settings = {"migrations": {"mode": "external"}}  # nothing to migrate
    await release.upgrade(values(servers, autoscaling={"consumer": SCALING}, **settings))
    await eventually(lambda: _consumers(kube, 1), timeout=REMOVED_SECONDS)

    async with traffic.flowing() as counted:
        async with _records_wait(servers):
            started = time.monotonic()
            await eventually(lambda: _consumers(kube, 2), timeout=ADDED_SECONDS)
            added = time.monotonic() - started
        await kube.rolled_out()
    started = time.monotonic()
    await eventually(lambda: _consumers(kube, 1), timeout=REMOVED_SECONDS)
    removed = time.monotonic() - started
    record("KEDA adds and removes a consumer", f"{added:.0f} s after records wait, {removed:.0f} s after, {counted}")
    assert counted.failures == []

    await release.upgrade(values(servers, **settings))
    await kube.kubectl("-n", MUSTER, "delete", "triggerauthentication", AUTHENTICATION)  # while KEDA can let go of it
    await kube.kubectl("delete", "-f", str(RESOURCES), "--ignore-not-found")


def _resources() -> list[Thing]:
    """KEDA's objects; its pods run where its images are."""
    objects: list[Thing] = list(yaml.safe_load_all(RESOURCES.read_text("utf-8")))
    for each in objects:
        if each["kind"] == "Deployment":
            each["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/hostname"] = "node1"
    return objects


async def _admit_keda(kube: Kube, servers: Servers) -> None:
    """Give KEDA a Kafka user that may describe what the services read, as the chart's README says."""
    principal = principal_of(USER)
    names = [(Kind.TOPIC, name) for name in topics()] + [(Kind.GROUP, service) for service in SERVICES]
    administrator = Administrator(servers.kafka.librdkafka_options())
    await administrator.add([Acl(principal, kind, name, Operation.DESCRIBE) for kind, name in names])
    await administrator.set_password(USER, servers.password(USER))
    login = {
        "username": USER,
        "password": servers.password(USER),
        "ca.crt": servers.authority.certificate.read_text("utf-8"),
    }
    references = {"username": "username", "password": "password", "ca": "ca.crt"}
    authentication: Thing = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": AUTHENTICATION, "namespace": MUSTER},
        "spec": {
            "secretTargetRef": [
                {"parameter": parameter, "name": "keda-kafka", "key": key} for parameter, key in references.items()
            ]
        },
    }
    await kube.apply([secret("keda-kafka", login, MUSTER), authentication])


@asynccontextmanager
async def _records_wait(servers: Servers) -> AsyncIterator[None]:
    """Keep billing from applying what it reads: its consumers wait for a locked table."""
    admin = await asyncpg.connect(servers.dsn(MUSTER))
    try:
        async with admin.transaction():
            await admin.execute("lock table billing.applied in access exclusive mode")
            yield
    finally:
        await admin.close()


async def _consumers(kube: Kube, wanted: int) -> bool:
    """Whether billing has this many consumers, all ready."""
    found = await kube.deployment("muster-billing-consumer")
    replicas = {found["spec"]["replicas"], found["status"].get("readyReplicas", 0)}
    assert replicas == {wanted}, replicas
    return True
