"""The fixtures that every test may ask for: real servers, databases and topics of a test's own, whole services."""

import asyncio
import json
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, kafka_at
from muster_operator.databases.provisioning import Access
from muster_runtime.http.issuer import Issuer
from tests.support import alone, servers
from tests.support.databases import Databases
from tests.support.homes import processes_of
from tests.support.scratch import make_scratch
from tests.support.secured_kafka import KafkaTokens, SecuredKafka, secured_kafka
from tests.support.services import ISSUER, ServiceRunner, TokenIssuer

# By default an example may take 200 ms, and a machine that does other work takes longer.
hypothesis.settings.register_profile("muster", deadline=None)
hypothesis.settings.load_profile("muster")


def pytest_configure(config: pytest.Config) -> None:
    """With several workers, start the servers once, before them: they find the addresses in the environment.

    A run in the background ignores SIGINT; the tests' children, which are stopped by it, must not inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Its default draws each traceback with every local variable, which takes minutes where many requests fail at once.
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    if config.getoption("numprocesses", default=None) and not hasattr(config, "workerinput"):
        servers.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that share a stack first: `--dist worksteal` leaves them to one worker, which starts one stack.

    A worker begins at the front of its tests; another steals from their end.
    """
    items.sort(key=lambda item: item.get_closest_marker("shares_stack") is None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that this process has started."""
    servers.stop()


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With several workers, a test that is marked `alone` waits for the others, and they wait for it."""
    if not hasattr(request.config, "workerinput"):
        yield
        return
    with alone.turn(tmp_path_factory.getbasetemp().parent, alone="alone" in request.keywords):
        yield


@pytest.fixture(scope="session")
def postgres() -> str:
    """The superuser's address of a real Postgres."""
    return servers.start().postgres_dsn


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """The address of a real Kafka."""
    return servers.start().kafka_bootstrap


@pytest.fixture(scope="session")
def kafka_tokens(tmp_path_factory: pytest.TempPathFactory) -> KafkaTokens:
    """The identity provider whose tokens the secured Kafka takes."""
    return KafkaTokens(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory, kafka_tokens: KafkaTokens) -> Iterator[SecuredKafka]:
    """A real Kafka that asks everybody who they are, and allows what ACLs allow."""
    kafka = secured_kafka(tmp_path_factory.mktemp("secured"), token_issuer=kafka_tokens.issuer)
    asyncio.run(kafka.server.up())
    yield kafka
    kafka.server.kill()


@pytest.fixture
def topic_prefix() -> str:
    """What this test puts before its topics' and groups' names."""
    return f"test-{secrets.token_hex(5)}."


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenIssuer:
    """The issuer whose tokens the tests' services accept."""
    folder: Path = tmp_path_factory.mktemp("issuer")
    issuer = Issuer.load(folder / "key.pem", issuer=ISSUER)
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(issuer.jwks()), "utf-8")
    return TokenIssuer(issuer, jwks)


@pytest.fixture
async def databases(postgres: str) -> AsyncIterator[Databases]:
    """Makes databases that live as long as the test."""
    made = Databases(postgres)
    yield made
    await made.drop_all()


@pytest.fixture
def service_database(databases: Databases) -> Callable[..., Awaitable[Access]]:
    """`await service_database("billing")`: a migrated database with that service's schema."""
    return databases.make


@pytest.fixture
async def run_service(
    databases: Databases, kafka_bootstrap: str, topic_prefix: str, tokens: TokenIssuer
) -> AsyncIterator[ServiceRunner]:
    """`await run_service(build, SettingsClass, **settings)`: the whole service in this process."""
    runner = ServiceRunner(databases, kafka_at(kafka_bootstrap), topic_prefix, tokens)
    yield runner
    await runner.close()


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no servers."""
    monkeypatch.delenv(POSTGRES_DSN, raising=False)
    monkeypatch.delenv(KAFKA_BOOTSTRAP, raising=False)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of the test's own; whatever still runs there at its end is stopped, and fails the test.

    It is not below pytest's folder, which pytest closes to other system users, such as that of Postgres.
    """
    path = make_scratch("muster-home-")
    yield path
    left = processes_of(path)
    for process in left:
        process.kill()
    shutil.rmtree(path)
    assert not left
