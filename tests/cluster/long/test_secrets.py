"""A secret is replaced as the runbook says: no process restarts, and every new connection uses the new one."""

import time
from pathlib import Path

import asyncpg

from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube
from tests.cluster.release import values
from tests.cluster.runbooks import PAGES, Desk
from tests.cluster.traffic import Traffic
from tests.support.eventually import eventually

# A migration's pod has ended.
RUNNING = "app.kubernetes.io/component=billing,muster/role!=migrate"

# Its commands: replace the Secret, and look for what the pods say then.
REPLACE, LOOK = PAGES["runbooks/rotate-secrets.md"][0].splitlines()

# The test cluster's kubelets check every 20 seconds, and then update the file.
REPLACED_SECONDS = 90


async def test_a_password_of_postgres_is_replaced_without_a_restart(
    kube: Kube, installed: Ready, traffic: Traffic, tmp_path: Path
) -> None:
    servers, new = installed.servers, "n3w-" + installed.servers.password("billing_worker")[:32]
    desk = Desk(tmp_path, values(servers))
    secret = tmp_path / "secrets" / "billing"
    secret.mkdir(parents=True)
    admin = await asyncpg.connect(servers.dsn("postgres"))
    before = await _restarts(kube)
    try:
        async with traffic.flowing() as counted:
            started = time.monotonic()
            data = await _data(kube)
            user, _, rest = data["MUSTER_POSTGRES_WORKER_DSN"].partition("@")
            data["MUSTER_POSTGRES_WORKER_DSN"] = f"{user.rpartition(':')[0]}:{new}@{rest}"
            for name, value in data.items():
                (secret / name).write_text(value, "utf-8")
            await desk.run(REPLACE, SERVICE="billing")
            await eventually(lambda: _every_pod_says_so(kube, desk), timeout=REPLACED_SECONDS, longest_pause=5.0)
            seconds = time.monotonic() - started
            await admin.execute(f"alter role billing_worker password '{new}'")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'billing_worker'"
            )
            await kube.rolled_out()
    finally:
        await admin.close()
    record("a password replaced, until every pod has it", f"{seconds:.0f} s, {counted}")
    assert await _restarts(kube) == before
    assert counted.failures == []


async def _restarts(kube: Kube) -> dict[str, int]:
    pods = await kube.pods(RUNNING)
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


async def _every_pod_says_so(kube: Kube, desk: Desk) -> bool:
    pods = {pod["metadata"]["name"] for pod in await kube.pods(RUNNING)}
    replaced = {line.partition("]")[0].split("/")[1] for line in (await desk.run(LOOK, SERVICE="billing")).splitlines()}
    assert replaced == pods, pods - replaced
    return True
