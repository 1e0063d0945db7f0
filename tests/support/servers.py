"""The servers for the tests: those that the environment names, or this run's own embedded ones."""

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN
from muster_local.stack import Stack
from tests.support.scratch import make_scratch


@dataclass(frozen=True)
class Servers:
    """The servers' addresses."""

    postgres_dsn: str
    kafka_bootstrap: str


_started: Stack | None = None


def start(*, durable: bool = False) -> Servers:
    """Start the servers that the environment does not name, and name them there for child processes.

    Unless `durable`, the started Postgres does not wait for the disk, which would only protect from a crash of the
    machine: each dropped database would cost a checkpoint of a second.
    """
    global _started
    if not (os.environ.get(POSTGRES_DSN) and os.environ.get(KAFKA_BOOTSTRAP)):
        home = Path(tempfile.mkdtemp(prefix="muster-tests-")) if durable else make_scratch("muster-tests-")
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
    """Stop what `start` started."""
    global _started
    if _started is not None:
        asyncio.run(_started.stop())
        shutil.rmtree(_started.home, ignore_errors=True)
        _started = None
