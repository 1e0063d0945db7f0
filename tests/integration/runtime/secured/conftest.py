"""A Postgres that takes connections over TLS only, and the probe's identity on a secured Kafka."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.secret_files import SecretFiles, new_password
from tests.support.secured_kafka import SecuredKafka, rights
from tests.support.secured_postgres import SecuredPostgres, secured_postgres
from tests.support.services import ServiceRunner, TokenIssuer

# This role presents a certificate in addition to its password.
CERTIFIED = ("sealed_owner",)


@pytest.fixture(scope="module")
def postgres_by_tls() -> Iterator[SecuredPostgres]:
    with secured_postgres(CERTIFIED) as postgres:
        yield postgres


@pytest.fixture
async def run_secured(
    postgres_by_tls: SecuredPostgres, secured: SecuredKafka, topic_prefix: str, tokens: TokenIssuer
) -> AsyncIterator[ServiceRunner]:
    """`await run_secured(build, Settings, **settings)`: a service on the secured servers."""
    databases = Databases(postgres_by_tls.server.address)
    kafka = secured.security.administrator(secured.bootstrap)
    await secured.administrator().add(rights("probe", topic_prefix))
    runner = ServiceRunner(databases, kafka, topic_prefix, tokens)
    yield runner
    await runner.close()
    await secured.administrator().remove(rights("probe", topic_prefix))
    await databases.drop_all()


@pytest.fixture
def files(tmp_path: Path) -> SecretFiles:
    """The folder of the service's secrets."""
    return SecretFiles(tmp_path / "secrets")


@pytest.fixture
async def password(secured: SecuredKafka) -> str:
    """The password with which the user `probe` logs in to Kafka."""
    password = new_password()
    await secured.administrator().set_password("probe", password)
    return password
