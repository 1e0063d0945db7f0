"""Fixtures of the fault suite: servers that may be broken, the probe's field, the seed, and what was measured.

In a drill (`--drill`) the servers are those of the environment, and none of them may be broken.
"""

import asyncio
import logging
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, kafka_at
from muster_operator.databases.provisioning import drop
from tests.faults import servers
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.probe.service import SCHEMA
from tests.faults.replica import Replicas
from tests.faults.secured import secured_postgres
from tests.faults.servers import Borrowed, Server
from tests.support.databases import Databases
from tests.support.services import TokenIssuer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to borrow servers. Without it the suite has its own, whatever the environment names."""
    parser.addoption(
        "--drill", action="store_true", help=f"borrow the servers of {POSTGRES_DSN} and {KAFKA_BOOTSTRAP}; break none"
    )


def pytest_configure() -> None:
    """Silence the client's warnings: here the broker is down on purpose."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def drill(pytestconfig: pytest.Config) -> bool:
    """Whether the servers are somebody else's."""
    return bool(pytestconfig.getoption("drill", default=False))


@pytest.fixture(scope="session")
def _postgres(drill: bool) -> Iterator[Server | Borrowed]:
    if drill:
        yield Borrowed(os.environ[POSTGRES_DSN])
        return
    # Not in pytest's folder: each new run closes that folder to all other users, and Postgres runs as one of them.
    with tempfile.TemporaryDirectory(prefix="muster-faults-") as folder:
        server = servers.postgres(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def postgres_by_tls() -> Iterator[Server]:
    """A Postgres that takes connections over TLS only."""
    # Not in pytest's folder: each new run closes that folder to all other users, and Postgres runs as one of them.
    with tempfile.TemporaryDirectory(prefix="muster-faults-") as folder:
        server = secured_postgres(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def _kafka(drill: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | Borrowed]:
    if drill:
        yield Borrowed(os.environ[KAFKA_BOOTSTRAP])
        return
    server = servers.kafka(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture
async def postgres_server(_postgres: Server | Borrowed) -> AsyncIterator[Server]:
    """A Postgres that this test may break, as long as it starts again."""
    server = _breakable(_postgres)
    await server.up()
    yield server
    await server.up()


@pytest.fixture
async def kafka_server(_kafka: Server | Borrowed) -> AsyncIterator[Server]:
    """A broker that this test may break, as long as it starts again."""
    server = _breakable(_kafka)
    await server.up()
    yield server
    await server.up()


def _breakable(server: Server | Borrowed) -> Server:
    if isinstance(server, Borrowed):
        pytest.fail("a drill breaks no server: this fault is tried on the suite's own alone", pytrace=False)
    return server


@pytest.fixture(scope="session")
def postgres(_postgres: Server | Borrowed) -> str:
    """The suite's Postgres in place of the other tests': fixtures that ask for databases get them there."""
    return _postgres.address


@pytest.fixture(scope="session")
def _template(_postgres: Server | Borrowed) -> Iterator[None]:
    """After a drill, drop the template of the probe's databases, which each field creates if it is missing."""
    yield
    if isinstance(_postgres, Borrowed):
        asyncio.run(_drop_template(_postgres.address))


async def _drop_template(dsn: str) -> None:
    await drop(dsn, await Databases(dsn)._template("probe", SCHEMA.migrations))


@pytest.fixture
def topic_prefix() -> str:
    """The prefix of this test's topics and groups, by which the cluster's administrator can recognize them."""
    return f"faults-{secrets.token_hex(5)}."


@pytest.fixture
def seed() -> int:
    """What makes a test repeatable: FAULT_SEED, or a new one, printed."""
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))
    print(f"FAULT_SEED={seed}")
    return seed


@pytest.fixture
def findings(request: pytest.FixtureRequest, seed: int) -> Findings:
    """What a test measures; `make faults` gathers it into docs/faults.md."""
    return Findings(request.node.name, seed)


@pytest.fixture
async def field(
    tmp_path: Path,
    _postgres: Server | Borrowed,
    _kafka: Server | Borrowed,
    _template: None,
    topic_prefix: str,
    tokens: TokenIssuer,
    seed: int,
) -> AsyncIterator[Field]:
    """The probe's field, on the suite's servers; it leaves nothing behind there."""
    await _postgres.up()
    await _kafka.up()
    dsn, bootstrap = _postgres.address, _kafka.address
    field = Field(tmp_path, dsn, kafka_at(bootstrap), topic_prefix, tokens, seed)
    try:
        async with field:
            yield field
            await _postgres.up()
            await _kafka.up()
    finally:
        if hasattr(field, "access"):  # a field whose start failed may have no database
            await drop(dsn, field._database)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    """This test's own primary and its standby."""
    # Not in pytest's folder, as above.
    with tempfile.TemporaryDirectory(prefix="muster-replicas-") as folder:
        replicas = await Replicas.start(Path(folder))
        yield replicas
        replicas.kill()


@pytest.fixture
async def replicated_field(
    tmp_path: Path, replicas: Replicas, kafka_server: Server, topic_prefix: str, tokens: TokenIssuer, seed: int
) -> AsyncIterator[Field]:
    """The probe's field on the primary; its processes, and its own connection to the database, follow the leader."""
    field = Field(tmp_path, replicas.primary.address, kafka_at(kafka_server.address), topic_prefix, tokens, seed)
    async with field:
        field.access = replicas.access(field.access)
        yield field
