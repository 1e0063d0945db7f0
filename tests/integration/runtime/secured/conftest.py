"""A Postgres that takes connections by TLS alone, and the identity of the probe at a Kafka with closed doors."""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster_local.certificates import Authority
from muster_local.child import Program
from muster_local.postgres import Postgres, PostgresSecurity
from tests.faults.servers import Server, free_port
from tests.support.databases import Databases
from tests.support.secret_files import SecretFiles, new_password
from tests.support.secured_kafka import SecuredKafka, rights
from tests.support.services import ServiceRunner, TokenIssuer

# This role shows a certificate beside its password.
CERTIFIED = ("sealed_owner",)


@dataclass(frozen=True)
class SecuredPostgres:
    """The server, and the authority of its certificate and of its clients'."""

    server: Server
    authority: Authority

    def certified(self, dsn: str, role: str) -> str:
        """A role's address, with a certificate for it."""
        certificate = self.authority.issue(role)
        return f"{dsn}&sslcert={certificate.certificate}&sslkey={certificate.key}"


@pytest.fixture(scope="module")
def postgres_by_tls() -> Iterator[SecuredPostgres]:
    # Not in pytest's folder: whenever another run begins, that is shut to all users but its own, and Postgres is one.
    with tempfile.TemporaryDirectory(prefix="muster-secured-") as folder:
        authority = Authority.load(Path(folder) / "certificates")
        security = PostgresSecurity(authority.issue("postgres"), authority.certificate, CERTIFIED)
        postgres = Postgres(Path(folder) / "postgres", free_port(), secrets.token_hex(16), security=security)
        postgres.prepare()
        program = Program("postgres", postgres.command(), postgres.dsn, stop_signal=signal.SIGINT, user=postgres.user)
        server = Server(program, Path(folder) / "postgres.log", postgres.answers)
        asyncio.run(server.up())
        yield SecuredPostgres(server, authority)
        server.stop()


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
    """With which the user `probe` logs in to Kafka."""
    password = new_password()
    await secured.administrator().set_password("probe", password)
    return password
