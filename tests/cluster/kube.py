"""Access to the cluster: through its API for single requests, through kubectl and cluster.sh for the rest."""

import asyncio
import json
import os
import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra" / "cluster" / "cluster.sh"
HOME = Path(os.environ.get("CLUSTER_HOME") or "/var/cache/muster-cluster")
RUN = HOME / "run"
KUBECONFIG = RUN / "admin.conf"
API = "https://10.243.0.1:6443"

# The namespaces of the release and of the servers.
MUSTER, SERVERS = "muster", "muster-servers"

Thing = dict[str, Any]


class CommandFailed(Exception):
    """A command's exit status is not 0; the message holds the end of its output."""


class Kube:
    """The administrator's connection, as an async context manager."""

    def __init__(self) -> None:
        context = ssl.create_default_context(cafile=str(RUN / "pki" / "ca.crt"))
        context.load_cert_chain(RUN / "pki" / "admin.crt", RUN / "pki" / "admin.key")
        self._http = httpx.AsyncClient(base_url=API, verify=context, timeout=30, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> Thing:
        """The object or list at an API path."""
        return dict((await self._http.get(path)).raise_for_status().json())

    async def pods(self, selector: str = "", namespace: str = MUSTER) -> list[Thing]:
        """The pods that match a label selector."""
        return list((await self.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"))["items"])

    async def deployment(self, name: str) -> Thing:
        """A Deployment of the release."""
        return await self.get(f"/apis/apps/v1/namespaces/{MUSTER}/deployments/{name}")

    async def deployments(self, namespace: str = MUSTER) -> list[Thing]:
        return list((await self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments"))["items"])

    async def delete_pod(self, name: str, grace: int | None = None) -> None:
        """Delete a pod of the release; `grace` is the time from SIGTERM to SIGKILL in seconds, by default the pod's."""
        query = "" if grace is None else f"?gracePeriodSeconds={grace}"
        (await self._http.delete(f"/api/v1/namespaces/{MUSTER}/pods/{name}{query}")).raise_for_status()

    async def are_gone(self, *names: str) -> bool:
        """Whether no pod of the release has one of these names."""
        return {*names}.isdisjoint(pod["metadata"]["name"] for pod in await self.pods())

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl; return its output. Raises CommandFailed."""
        return await command(str(HOME / "bin" / "kubectl"), "--kubeconfig", str(KUBECONFIG), *arguments, stdin=stdin)

    async def apply(self, objects: Iterable[Thing]) -> None:
        """Create or update objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        await self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))

    async def try_apply(self, objects: Iterable[Thing], namespace: str) -> None:
        """Let the API server validate objects as if it created them: their schemas, CEL rules, and admission.

        Raises CommandFailed with what it does not accept, which includes fields that it does not know.
        """
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        flags = ("--server-side", "--dry-run=server", "--validate=strict")
        await self.kubectl("-n", namespace, "apply", *flags, "-f", "-", stdin=json.dumps(items))

    async def rolled_out(self, namespace: str = MUSTER, timeout: float = 300) -> None:
        """Wait until every Deployment's pods have its present template and are available."""

        async def all_ready() -> bool:
            waiting = [d["metadata"]["name"] for d in await self.deployments(namespace) if not _is_rolled_out(d)]
            assert not waiting, f"not rolled out: {waiting}"
            return True

        try:
            await eventually(all_ready, timeout=timeout, longest_pause=1.0)
        except AssertionError:
            print(await self.troubles(namespace))
            raise

    async def troubles(self, namespace: str = MUSTER) -> str:
        """What the cluster reports about pods that are not ready."""
        said = [await self.kubectl("-n", namespace, "get", "pods", "-o", "wide")]
        pods = await self.pods(namespace=namespace)
        said += [f"{pod['metadata']['name']}: {json.dumps(reasons(pod))}" for pod in pods if not is_ready(pod)]
        return "\n".join(said)


async def command(*arguments: str, stdin: str = "", environment: Mapping[str, str] = {}) -> str:
    """Run a command, with additional `environment` variables; return its output. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await process.communicate(stdin.encode())
    if process.returncode:
        raise CommandFailed(f"{' '.join(arguments[:8])}: {(out + err).decode()[-3000:]}")
    return out.decode()


def config_map(name: str, data: Mapping[str, str], namespace: str) -> Thing:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def secret(name: str, data: Mapping[str, str], namespace: str) -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(data),
    }


def is_ready(pod: Thing) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def reasons(pod: Thing) -> list[str]:
    """Why a pod's containers wait or terminated, with their messages."""
    status = pod["status"]
    found = []
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        states = [container.get("state", {}), container.get("lastState", {})]
        ends = [state[name] for state in states for name in ("waiting", "terminated") if name in state]
        found += [f"{container['name']}: {end.get('reason')}: {end.get('message', '')}" for end in ends]
    return found


def seconds_to_ready(pod: Thing) -> float:
    """The time from the start of a pod's last container until the pod was ready, in the API's whole seconds."""
    (ready,) = (c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    started = max(_instant(c["state"]["running"]["startedAt"]) for c in pod["status"]["containerStatuses"])
    return (_instant(ready["lastTransitionTime"]) - started).total_seconds()


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_rolled_out(deployment: Thing) -> bool:
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return bool(status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and counts == {wanted})
