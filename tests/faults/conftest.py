"""Fixtures of the fault suite: servers that may be broken, the probe's field, the seed, and what was measured."""

import logging
import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults import servers
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.servers import Server
from tests.support.services import TokenIssuer


def pytest_configure() -> None:
    """Without the client's complaints: here the broker is away on purpose."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def _postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = servers.postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = servers.kafka(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture
async def postgres_server(_postgres: Server) -> AsyncIterator[Server]:
    """A Postgres that this test may break, as long as it starts again."""
    await _postgres.up()
    yield _postgres
    await _postgres.up()


@pytest.fixture
async def kafka_server(_kafka: Server) -> AsyncIterator[Server]:
    """A broker that this test may break, as long as it starts again."""
    await _kafka.up()
    yield _kafka
    await _kafka.up()


@pytest.fixture
def seed() -> int:
    """What makes a test repeatable: FAULT_SEED, or a new one, printed."""
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))
    print(f"FAULT_SEED={seed}")
    return seed


@pytest.fixture
def dice(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def findings(request: pytest.FixtureRequest, seed: int) -> Findings:
    """What a test measures; `make faults` gathers it into docs/faults.md."""
    return Findings(request.node.name, seed)


@pytest.fixture
async def field(
    tmp_path: Path,
    postgres_server: Server,
    kafka_server: Server,
    topic_prefix: str,
    tokens: TokenIssuer,
    dice: random.Random,
) -> AsyncIterator[Field]:
    """The probe's field, on the suite's servers."""
    dsn, bootstrap = postgres_server.program.address, kafka_server.program.address
    async with Field(tmp_path, dsn, bootstrap, topic_prefix, tokens, dice) as field:
        yield field
        await postgres_server.up()
        await kafka_server.up()
