"""Bad input is reported, in a container's last message or in a pod's event, and never loops without a reason."""

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from muster_operator.databases.provisioning import provision
from tests.cluster.conftest import Ready
from tests.cluster.kube import MUSTER, Kube, Thing, reasons, secret
from tests.cluster.servers import CA_IN_PODS, DOMAIN
from tests.support.eventually import eventually

SAID_WITHIN = 60

TLS_IN_PODS = f"sslmode=verify-full&sslrootcert={CA_IN_PODS}"

# A release waits minutes for its schema; these pods wait only this long.
PATIENCE_SECONDS = 5


async def test_a_missing_secret_is_named_in_an_event(kube: Kube) -> None:
    async with _pod(kube, "no-secret", lambda spec: _use_secret(spec, "muster-nothing")) as name:
        await _said(lambda: _events(kube, name), 'secret "muster-nothing" not found')


async def test_an_unreachable_database_is_named_by_the_wait_and_by_the_service(kube: Kube, installed: Ready) -> None:
    away = f"postgresql://billing_api:{'x1y2z3' * 4}@nowhere.{DOMAIN}/muster?{TLS_IN_PODS}"
    await _keep_secret(kube, installed, "away", away)
    async with _pod(kube, "away", lambda spec: _use_secret(spec, "away")) as name:
        await _said(lambda: _last_words(kube, name), "MUSTER_POSTGRES_WORKER_DSN: Postgres cannot be queried: ")

    def serve_at_once(spec: Thing) -> None:
        _use_secret(spec, "away")
        del spec["initContainers"]

    async with _pod(kube, "away-at-once", serve_at_once) as name:
        await _said(lambda: _last_words(kube, name), "Postgres cannot be reached at MUSTER_POSTGRES_WORKER_DSN: ")


async def test_a_schema_that_is_behind_is_named_by_the_wait(kube: Kube, installed: Ready) -> None:
    servers = installed.servers
    access = await provision(servers.dsn("postgres"), "behind", "billing", servers.password("postgres"))
    await _keep_secret(kube, installed, "behind", servers.in_pods(access.api_dsn))
    async with _pod(kube, "behind", lambda spec: _use_secret(spec, "behind")) as name:
        await _said(lambda: _last_words(kube, name), "the schema of billing is at no version and lacks ")


@asynccontextmanager
async def _pod(kube: Kube, name: str, change: Callable[[Thing], None]) -> AsyncIterator[str]:
    """A pod like those of billing's API, with a change; it belongs to no Service or Deployment."""
    (like,) = [d for d in await kube.deployments() if d["metadata"]["name"] == "muster-billing-api"]
    spec = copy.deepcopy(like["spec"]["template"]["spec"])
    spec["terminationGracePeriodSeconds"] = 1
    spec["containers"][0].pop("lifecycle")  # there are no requests to wait for
    for container in spec["initContainers"]:
        container["args"] = [*container["args"][:3], str(PATIENCE_SECONDS)]
    change(spec)
    await kube.apply(
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": MUSTER}, "spec": spec}]
    )
    try:
        yield name
    finally:
        await kube.delete_pod(name)


def _use_secret(spec: Thing, name: str) -> None:
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "secrets"]
    volume["projected"]["sources"] = [{"secret": {"name": name}}]


async def _keep_secret(kube: Kube, installed: Ready, name: str, dsn: str) -> None:
    data = {
        "MUSTER_POSTGRES_API_DSN": dsn,
        "MUSTER_POSTGRES_WORKER_DSN": dsn,
        "MUSTER_KAFKA_USERNAME": "billing",
        "MUSTER_KAFKA_PASSWORD": installed.servers.password("billing"),
    }
    await kube.apply([secret(name, data, MUSTER)])


async def _events(kube: Kube, name: str) -> str:
    events = await kube.get(f"/api/v1/namespaces/{MUSTER}/events?fieldSelector=involvedObject.name={name}")
    return " ".join(event["message"] for event in events["items"])


async def _last_words(kube: Kube, name: str) -> str:
    return " ".join(reasons(await kube.get(f"/api/v1/namespaces/{MUSTER}/pods/{name}")))


async def _said(look: Callable[[], object], words: str) -> None:
    """Wait until the text from `look` contains these words."""

    async def is_said() -> bool:
        found = await look()  # type: ignore[misc]
        assert words in str(found), f"{words!r} is not in {found!r}"
        return True

    await eventually(is_said, timeout=SAID_WITHIN)
