"""A release of the chart: installed, upgraded, and rolled back with Helm's own library, as an operator does it."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from helm_python import Config

from tests.cluster.kube import KUBECONFIG, MUSTER, ROOT, SERVERS, Kube, Thing
from tests.cluster.servers import DOMAIN, Servers
from tests.support.services import ISSUER

CHART = ROOT / "infra" / "chart" / "muster"
NAME = "muster"

INSTALL_SECONDS = 420

ROLES = ("all", "api", "consumer", "relay", "scheduler", "worker")

# The addresses outside pods in the cluster's network: the tests come from there, through the first node. They listen on
# the machine's own.
TESTS, MACHINE = "10.243.0.0/24", "10.243.0.1"
COLLECTOR_PORT = 4318

# Each node counts the machine's two cores as its own; a lost node's pods must fit on the others.
SMALL_REQUEST = {"resources": {"requests": {"cpu": "50m"}}}

SERVERS_ALONE = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SERVERS}}}]


def namespace(name: str) -> Thing:
    """A namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def values(servers: Servers, **more: Any) -> dict[str, Any]:
    """The values of a release on these servers; `more` adds or replaces top-level blocks."""
    blocks: dict[str, Any] = {
        "kafka": {"bootstrap": servers.bootstrap},
        "oidc": {"issuer": ISSUER, "jwks": f"http://issuer.{DOMAIN}:8080/jwks.json"},
        "smtp": {
            "host": f"mail.{DOMAIN}",
            "port": 2525,
            "startTLS": False,
            "from": "program@muster.gov",
            "operators": "operators@muster.gov",
        },
        "settings": {"MUSTER_ALLOW_PLAINTEXT": "true"},  # the issuer's keys, and no login of the mail server
        "trustedCA": {"configMap": "ca", "https": False},
        # Only the tracing test listens there, and only its own requests are traced.
        "tracing": {"endpoint": f"http://{MACHINE}:{COLLECTOR_PORT}", "ratio": 0},
        "roles": dict.fromkeys(ROLES, SMALL_REQUEST),
        "networkPolicy": {
            "postgres": {"to": SERVERS_ALONE},
            "kafka": {"to": SERVERS_ALONE, "ports": [9092]},
            "issuer": {"to": SERVERS_ALONE, "ports": [8080]},
            "smtp": {"to": SERVERS_ALONE},
            "tracing": {"to": [{"ipBlock": {"cidr": f"{MACHINE}/32"}}]},
            "clients": {"from": [{"ipBlock": {"cidr": TESTS}}]},
            "metrics": {"from": [{"ipBlock": {"cidr": TESTS}}]},
        },
    }
    return blocks | more


class Release:
    """A release in a namespace."""

    def __init__(self, kube: Kube, namespace: str = MUSTER, chart: Path = CHART) -> None:
        self._kube = kube
        self._namespace = namespace
        self._chart = chart
        self._helm = Config(kubeconfig_path=KUBECONFIG, namespace=namespace)

    async def install(self, values: Mapping[str, Any]) -> None:
        """Install it, and wait until every pod is ready. Prints why if one is not."""
        await self._act(
            partial(self._helm.install, self._chart, NAME, dict(values), wait="watcher", timeout=INSTALL_SECONDS)
        )

    async def upgrade(self, values: Mapping[str, Any], chart: Path | None = None) -> None:
        """Upgrade it, and wait until every pod is ready."""
        await self._act(
            partial(
                self._helm.upgrade,
                chart or self._chart,
                NAME,
                dict(values),
                wait="watcher",
                timeout=INSTALL_SECONDS,
                reset_values=True,
            )
        )

    async def roll_back(self) -> None:
        """Roll back to the previous revision, and wait until every pod is ready."""
        await self._act(partial(self._helm.rollback, NAME, wait="watcher", timeout=INSTALL_SECONDS))

    async def uninstall(self) -> None:
        await self._act(partial(self._helm.uninstall, NAME, wait="watcher", timeout=INSTALL_SECONDS))

    async def test(self) -> str:
        """Run `helm test`; return its logs. Raises if a test fails."""
        return str((await self._act(partial(self._helm.test, NAME, timeout=180, logs=True))).get("logs", ""))

    async def _act(self, action: Any) -> Any:
        try:
            return await asyncio.to_thread(action)
        except Exception:
            print(await self._kube.troubles(self._namespace))
            print(await self._kube.kubectl("-n", self._namespace, "get", "events", "--field-selector", "type!=Normal"))
            raise
