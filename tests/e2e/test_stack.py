"""The stack as an operator sees it: it comes up, stays up, goes down, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from muster_contracts import SERVICES, topics
from muster_local.home import Home, State
from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, kafka_at
from muster_local.stack import Stack, StackFailed
from muster_operator.databases.provisioning import drop
from muster_operator.topics import delete_topics
from tests.support.command import an_agency_joins_and_leaves, muster
from tests.support.eventually import eventually
from tests.support.homes import processes_of

# Long enough for a busy machine.
PATIENCE = 90


@pytest.fixture
def embedded_postgres(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names only a Kafka: a stack with just Postgres starts quickly."""
    monkeypatch.delenv(POSTGRES_DSN, raising=False)
    monkeypatch.setenv(KAFKA_BOOTSTRAP, kafka_bootstrap)


async def alone(home: Path) -> Stack:
    """A stack of servers without services."""
    return await Stack.start(home, services=())


@pytest.mark.usefixtures("embedded_postgres")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_that_is_stopped_leaves_nothing_running(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "muster_operator", "up", f"--home={home}"]
    starting = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    await eventually(lambda: Home(home).supervisor() is not None, timeout=PATIENCE)
    starting.send_signal(number)
    _, said = await starting.communicate()
    assert (starting.returncode, "nothing is left running" in said.decode()) == (130, True), said
    assert processes_of(home) == []


@pytest.mark.usefixtures("embedded")
async def test_the_whole_stack_comes_up_survives_a_kill_and_goes_down(home: Path) -> None:
    up = muster("up", "--home", str(home))
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"muster agency list --home {home}" in up.stdout
    stack = Stack.running(home)
    assert stack is not None
    assert stack.pids().keys() == {"postgres", "kafka", "mail", *SERVICES}
    assert muster("status", "--home", str(home)).returncode == 0

    async with httpx.AsyncClient() as client:
        token = muster("token", "--scope", "enrollment:read", "--agency", "*", "--home", str(home)).stdout.strip()
        agencies = f"{stack.service_url('enrollment')}/v1/agencies"
        assert (await client.get(agencies)).status_code == 401
        assert (await client.get(agencies, headers={"Authorization": f"Bearer {token}"})).status_code == 200

    await an_agency_joins_and_leaves(stack)

    for option in ("--port=billing=8003", "--maintenance=billing"):
        again = muster("up", "--home", str(home), option)
        assert (again.returncode, option.partition("=")[0] in again.stderr) == (4, True), again.stderr
    shown = json.loads(muster("status", "--json", "--home", str(home)).stdout)
    assert {process["process"] for process in shown["processes"] if process["ready"]} == stack.pids().keys()

    killed = stack.pids()["billing"]
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: stack.pids().get("billing", killed) != killed, timeout=PATIENCE)
    await eventually(lambda: muster("status", "--home", str(home)).returncode == 0, timeout=PATIENCE)
    assert "billing restarted 1× (killed by SIGKILL, " in muster("status", "--home", str(home)).stdout
    assert "billing restarted" in muster("logs", "supervisor", "--home", str(home)).stdout

    os.kill(stack.pids()["notify"], signal.SIGTERM)
    await eventually(lambda: stack.state().processes["notify"].last_exit == "exited with status 0", timeout=PATIENCE)

    down = muster("down", "--home", str(home))
    assert (down.returncode, down.stdout) == (0, f"Stopped the stack in {home}.\n")
    assert processes_of(home) == []
    down = muster("down", "--home", str(home))
    assert (down.returncode, down.stdout) == (0, f"Nothing was running in {home}.\n")
    assert muster("status", "--home", str(home)).returncode == 1


@pytest.mark.usefixtures("embedded")
async def test_data_ports_and_keys_outlive_the_processes(home: Path) -> None:
    first = await alone(home)
    connection = await asyncpg.connect(first.admin_dsn)
    await connection.execute("create table kept as select 42 as answer")
    await connection.close()
    addresses, keys = (first.admin_dsn, first.bootstrap), first._home.issuer().jwks()
    await first.stop()

    second = await alone(home)
    try:
        assert (second.admin_dsn, second.bootstrap) == addresses
        assert second._home.issuer().jwks() == keys
        connection = await asyncpg.connect(second.admin_dsn)
        assert await connection.fetchval("select answer from kept") == 42
        await connection.close()
    finally:
        await second.stop()


@pytest.mark.usefixtures("embedded")
async def test_a_home_is_closed_to_every_other_user(home: Path) -> None:
    stack = await alone(home)
    try:
        assert home.stat().st_mode & 0o067 == 0
        if os.geteuid() == 0:
            nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
            for path in (home / "supervisor.lock", home / "kafka", home / "logs" / "kafka.log"):
                assert subprocess.run(["/usr/bin/test", "-r", path], check=False, **nobody).returncode == 1, path
    finally:
        await stack.stop()
    inside = set(home.rglob("*"))  # while they run, the servers make files and remove them
    kept = {home / "postgres" / "PG_VERSION", home / "postgres" / "base", home / "kafka" / "data" / "meta.properties"}
    assert {*kept, home / "supervisor.lock", home / "logs" / "kafka.log"} <= inside
    assert [path for path in inside if path.stat().st_mode & 0o077] == []


async def test_a_home_that_holds_a_link_is_refused_in_one_line(home: Path) -> None:
    Home(home).make()
    (home / "state.json").symlink_to(home / "logs" / "billing.log")
    refused = muster("up", "--home", str(home))
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        f"muster: {home}/state.json is a symbolic link, but a home holds only plain files: remove it"
    )


@pytest.mark.usefixtures("embedded_postgres")
async def test_two_starts_at_once_share_one_stack(home: Path) -> None:
    first, second = await asyncio.gather(alone(home), alone(home))
    try:
        assert first.pids() == second.pids() != {}
    finally:
        await first.stop()


@pytest.mark.usefixtures("embedded")
async def test_a_service_that_refuses_to_start_is_named_and_nothing_is_left(home: Path) -> None:
    installation = Home(home).make().installation([], {})
    broken = installation.model_copy(update={"secret_key": "too short"})
    (home / "installation.json").write_text(broken.model_dump_json())

    with pytest.raises(StackFailed, match=r"(?s)notify exited with status 2:.*MUSTER_SECRET_KEY"):
        await Stack.start(home, services=["notify"])
    assert processes_of(home) == []
    assert Stack.running(home) is None


@pytest.mark.usefixtures("embedded_postgres")
async def test_a_service_that_is_killed_while_the_stack_starts_is_started_again(home: Path) -> None:
    def kill() -> bool:
        service = Home(home).read_state().processes.get("notify")
        if service is None or service.pid is None:
            return False
        os.kill(service.pid, signal.SIGKILL)
        return True

    starting = asyncio.create_task(Stack.start(home, services=["notify"]))
    await eventually(kill, timeout=PATIENCE)
    stack = await starting
    try:
        service = stack.state().processes["notify"]
        assert (service.restarts, service.last_exit) == (1, "killed by SIGKILL")
        await delete_topics(kafka_at(stack.bootstrap), [stack.topic_prefix + name for name in topics()])
    finally:
        await stack.stop()


@pytest.mark.usefixtures("embedded_postgres")
async def test_a_port_in_use_is_refused(home: Path, unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    async with server:
        with pytest.raises(StackFailed, match=f"port {port} is in use"):
            await Stack.start(home, services=(), ports={"postgres": port})


@pytest.mark.usefixtures("embedded_postgres")
async def test_what_a_dead_supervisor_left_behind_does_no_harm(home: Path) -> None:
    Home(home).make().write_state(State(supervisor=os.getpid(), phase="running"))
    (home / "supervisor.lock").touch(mode=0o600)
    (home / "supervisor.lock").write_text(str(os.getpid()))

    assert Stack.running(home) is None
    await Stack(home).stop()  # would end this very process if it trusted the pid
    stack = await alone(home)
    try:
        assert stack.pids().keys() == {"postgres"}
    finally:
        await stack.stop()


@pytest.mark.usefixtures("embedded_postgres")
async def test_nothing_outlives_a_killed_supervisor(home: Path) -> None:
    stack = await alone(home)
    os.kill(stack.state().supervisor, signal.SIGKILL)
    await eventually(lambda: not processes_of(home), timeout=PATIENCE)
    assert Stack.running(home) is None


@pytest.mark.usefixtures("embedded_postgres")
async def test_a_stack_ends_with_the_process_that_started_it(home: Path) -> None:
    script = (
        "import asyncio, pathlib, sys, time\n"
        "from muster_local.stack import Stack\n"
        "asyncio.run(Stack.start(pathlib.Path(sys.argv[1]), services=()))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert await asyncio.to_thread(starter.stdout.readline) == "up\n"
        starter.kill()
    await eventually(lambda: not processes_of(home), timeout=PATIENCE)


@pytest.mark.usefixtures("embedded_postgres")
async def test_an_interrupted_start_leaves_nothing(home: Path) -> None:
    command = [sys.executable, "-m", "muster_operator", "up", "--home", str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        await eventually(lambda: Stack(home).pids(), timeout=PATIENCE)
        up.send_signal(signal.SIGINT)
        _, output = await asyncio.to_thread(up.communicate)
    assert up.returncode == 130
    assert "nothing is left running" in output
    assert processes_of(home) == []


async def test_servers_that_the_environment_names_are_used(
    home: Path, postgres: str, kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POSTGRES_DSN, postgres)
    monkeypatch.setenv(KAFKA_BOOTSTRAP, kafka_bootstrap)
    stack = await Stack.start(home, services=["billing"])
    try:
        assert stack.pids().keys() == {"mail", "billing"}
        assert stack.bootstrap == kafka_bootstrap
        assert stack.topic_prefix != ""
    finally:
        database, prefix = stack.admin_dsn.rpartition("/")[2].partition("?")[0], stack.topic_prefix
        await stack.stop()
        await drop(postgres, database)
        await delete_topics(kafka_at(kafka_bootstrap), [prefix + name for name in topics()])
