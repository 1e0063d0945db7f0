"""A secret is replaced while everything runs: no process restarts, and every new connection uses the new one."""

import time

import asyncpg

from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube, secret
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

# The kubelet checks once a minute, and then updates the file.
REPLACED_SECONDS = 150


async def test_a_password_of_postgres_is_replaced_without_a_restart(
    kube: Kube, installed: Ready, traffic: Traffic
) -> None:
    servers, new = installed.servers, "n3w-" + installed.servers.password("billing_worker")[:32]
    admin = await asyncpg.connect(servers.dsn("postgres"))
    before = await _restarts(kube)
    try:
        async with traffic.flowing() as counted:
            started = time.monotonic()
            # First the role, as in the runbook: open connections stay, and new ones wait for the file.
            await admin.execute(f"alter role billing_worker password '{new}'")
            data = await _data(kube)
            user, _, rest = data["MUSTER_POSTGRES_WORKER_DSN"].partition("@")
            data["MUSTER_POSTGRES_WORKER_DSN"] = f"{user.rpartition(':')[0]}:{new}@{rest}"
            await kube.apply([secret("muster-billing", data, MUSTER)])
            await eventually(lambda: _file_says(kube, new), timeout=REPLACED_SECONDS)
            seconds = time.monotonic() - started
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'billing_worker'"
            )
            await kube.rolled_out()
    finally:
        await admin.close()
    record("a password replaced, until a pod has it", f"{seconds:.0f} s, {counted}")
    assert await _restarts(kube) == before


async def _restarts(kube: Kube) -> dict[str, int]:
    pods = await kube.pods("app.kubernetes.io/component=billing")
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}


async def _data(kube: Kube) -> dict[str, str]:
    found = await kube.kubectl(
        "-n",
        MUSTER,
        "get",
        "secret",
        "muster-billing",
        "-o",
        "go-template={{range $k, $v := .data}}{{$k}} {{base64decode $v}}\n{{end}}",
    )
    return dict(line.split(" ", 1) for line in found.splitlines())


async def _file_says(kube: Kube, text: str) -> bool:
    pod = (await kube.pods("app.kubernetes.io/component=billing,muster/role=relay"))[0]["metadata"]["name"]
    look = "import pathlib; print(pathlib.Path('/etc/muster/secrets/MUSTER_POSTGRES_WORKER_DSN').read_text())"
    return text in await kube.kubectl("-n", MUSTER, "exec", pod, "--", "/opt/muster/bin/python", "-c", look)
