"""A PgBouncer in front of the field's Postgres, configured by the test."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.field import Field
from tests.faults.pooler.pgbouncer import PgBouncer, StartPooler
from tests.faults.servers import Server


@pytest.fixture
async def start_pooler(field: Field, postgres_server: Server) -> AsyncIterator[StartPooler]:
    """`await start_pooler("pool_mode = session", ...)`: PgBouncer, until the test ends."""
    started: list[PgBouncer] = []
    with tempfile.TemporaryDirectory(prefix="muster-pooler-") as folder:

        async def start(*settings: str) -> PgBouncer:
            pooler = PgBouncer(Path(folder), field.access, postgres_server.program.user, settings)
            started.append(pooler)
            await pooler.up()
            return pooler

        yield start
        for pooler in started:
            pooler.kill()
            print("--- pgbouncer", *pooler.said().splitlines()[-15:], sep="\n")
