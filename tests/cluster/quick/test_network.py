"""Network policies: a pod can reach what it needs, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.kube import MUSTER, SERVERS, Kube, command
from tests.cluster.release import MACHINE
from tests.cluster.servers import DOMAIN

# Runs in a pod and tries all places concurrently. A policy may drop or refuse; something listens at each place.
TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def look(place):
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
        return "open"
    except OSError:
        return "closed"
places = sys.argv[1:]
with ThreadPoolExecutor() as pool:
    print(json.dumps(dict(zip(places, pool.map(look, places)))))
"""

POSTGRES, KAFKA = f"postgres.{DOMAIN}:5432", f"kafka-1.kafka.{DOMAIN}:9092"
MAIL, ISSUER = f"mail.{DOMAIN}:2525", f"issuer.{DOMAIN}:8080"
ENROLLMENT = f"muster-enrollment.{MUSTER}.svc.cluster.local:80"
API_SERVER = "kubernetes.default.svc.cluster.local:443"
BROKERS = f"kafka-1.kafka.{DOMAIN}:9094"

# Where the tests listen, outside the cluster: as a public address, which leads nowhere else, and as a private one.
PUBLIC, PRIVATE = "11.22.33.44", MACHINE


async def test_a_service_reaches_what_it_needs_and_nothing_else(kube: Kube) -> None:
    forbidden = [MAIL, ENROLLMENT, API_SERVER, BROKERS]
    for role, needed in {"consumer": [POSTGRES, ISSUER, KAFKA], "api": [POSTGRES, ISSUER]}.items():
        closed = [*forbidden, *({KAFKA} - {*needed})]
        found = await _tried(kube, MUSTER, await _pod(kube, "billing", role), *needed, *closed)
        assert found == dict.fromkeys(needed, "open") | dict.fromkeys(closed, "closed"), role


async def test_notify_reaches_the_mail_server_too(kube: Kube) -> None:
    found = await _tried(kube, MUSTER, await _pod(kube, "notify", "worker"), POSTGRES, KAFKA, MAIL, API_SERVER)
    assert found == dict.fromkeys([POSTGRES, KAFKA, MAIL], "open") | {API_SERVER: "closed"}


async def test_only_deliveries_reach_a_public_address_and_none_a_private_one(kube: Kube) -> None:
    public, plain, private = f"{PUBLIC}:443", f"{PUBLIC}:80", f"{PRIVATE}:443"
    async with _listening(80, 443):
        worker = await _tried(kube, MUSTER, await _pod(kube, "notify", "worker"), public, plain, private)
        api = await _tried(kube, MUSTER, await _pod(kube, "notify", "api"), public)
    assert worker == {public: "open", plain: "closed", private: "closed"}
    assert api == {public: "closed"}


async def test_nobody_reaches_a_pod_that_serves_no_requests(kube: Kube) -> None:
    (mail,) = await kube.pods("app=mail", SERVERS)
    (relay,) = await kube.pods("app.kubernetes.io/component=enrollment,muster/role=relay")
    place = f"{relay['status']['podIP']}:8000"
    assert await _tried(kube, SERVERS, mail["metadata"]["name"], place, KAFKA) == {place: "closed", KAFKA: "open"}


@asynccontextmanager
async def _listening(*ports: int) -> AsyncIterator[None]:
    """Listen on these ports of both addresses."""
    await command("ip", "address", "add", f"{PUBLIC}/32", "dev", "lo")
    servers: list[asyncio.Server] = []
    try:
        for port in ports:
            servers += [await asyncio.start_server(lambda _, writer: writer.close(), [PUBLIC, PRIVATE], port)]
        yield
    finally:
        for server in servers:
            server.close()
        await command("ip", "address", "delete", f"{PUBLIC}/32", "dev", "lo")


async def _pod(kube: Kube, service: str, role: str) -> str:
    return str((await kube.pods(f"app.kubernetes.io/component={service},muster/role={role}"))[0]["metadata"]["name"])


async def _tried(kube: Kube, namespace: str, pod: str, *places: str) -> dict[str, str]:
    said = await kube.kubectl("-n", namespace, "exec", pod, "--", "/opt/muster/bin/python", "-c", TRY, *places)
    return dict(json.loads(said.splitlines()[-1]))
