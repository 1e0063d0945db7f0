"""The servers that the tests use: those of the environment, or embedded ones of this run's own."""

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN
from muster_local.stack import Stack


@dataclass(frozen=True)
class Servers:
    """Where they are."""

    postgres_dsn: str
    kafka_bootstrap: str


_started: Stack | None = None


def start(*, durable: bool = False) -> Servers:
    """The servers; what the environment does not name is started, and put into it for child processes.

    Unless `durable`, a Postgres that is started does not wait for the disk: each dropped database would cost a
    checkpoint of a second. That protects only from a crash of the machine.
    """
    global _started
    if not (os.environ.get(POSTGRES_DSN) and os.environ.get(KAFKA_BOOTSTRAP)):
        home = Path(tempfile.mkdtemp(prefix="muster-tests-"))
        _started = asyncio.run(Stack.start(home, services=()))
        if not durable:
            asyncio.run(_stop_waiting_for_the_disk(_started.admin_dsn))
        os.environ[POSTGRES_DSN] = _started.admin_dsn
        os.environ[KAFKA_BOOTSTRAP] = _started.bootstrap
    return Servers(os.environ[POSTGRES_DSN], os.environ[KAFKA_BOOTSTRAP])


async def _stop_waiting_for_the_disk(admin_dsn: str) -> None:
    connection = await asyncpg.connect(admin_dsn)
    await connection.execute("alter system set fsync = off")
    await connection.execute("select pg_reload_conf()")
    await connection.close()


def stop() -> None:
    """Stop what `start` has started."""
    global _started
    if _started is not None:
        asyncio.run(_started.stop())
        shutil.rmtree(_started.home, ignore_errors=True)
        _started = None
