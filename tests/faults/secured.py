"""The probe's field on secured servers: a Kafka that authenticates, a Postgres over TLS only, secrets in files."""

import secrets
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from muster_local.certificates import LIFETIME, Authority, Certificate
from muster_local.child import Program
from muster_local.kafka_security import TokenIssuer as KafkaTokenIssuer
from muster_local.postgres import Postgres, PostgresSecurity
from muster_operator.access.acls import Acl
from tests.faults.field import Field
from tests.faults.servers import Process, Server, free_port
from tests.support.secret_files import SecretFiles, new_password
from tests.support.secured_kafka import SecuredKafka, rights, secured_kafka
from tests.support.services import TokenIssuer

PRINCIPAL = "User:probe"

# How long a login to Kafka lasts: then the broker cuts the connection.
LOGIN_SECONDS = 3

# How long after a secret changes on a server the process's file changes too.
LATE_SECONDS = 1.5


class SecuredField:
    """The field, its servers, and the credentials that the probe's processes present to them."""

    def __init__(self, field: Field, kafka: SecuredKafka, folder: Path) -> None:
        self.field = field
        self.kafka = kafka
        self.folder = folder
        self.files = SecretFiles(folder / "secrets")
        self.administrator = kafka.administrator()

    @property
    def rights(self) -> Sequence[Acl]:
        """The ACLs that the probe needs on Kafka."""
        return rights("probe", self.field.prefix)

    async def admit(self) -> None:
        """Give the probe its rights, its passwords, and the files that hold them."""
        await self.administrator.add(self.rights)
        await self.set_kafka_password()
        for role in ("api", "worker"):
            await self.set_postgres_password(role)

    async def set_kafka_password(self) -> None:
        """Give the probe another password on Kafka, and then in its file."""
        password = new_password()
        await self.administrator.set_password("probe", password)
        self.files.put("MUSTER_KAFKA_PASSWORD", password)

    async def set_postgres_password(self, role: str) -> None:
        """Give a role another password in Postgres, and then in its file."""
        password = new_password()
        await self.field.admin.execute(f"alter role probe_{role} password '{password}'")
        self.put_address(role, password)

    def put_address(self, role: str, password: str) -> None:
        """Write a role's address with a password into its file."""
        parts = urlsplit(getattr(self.field.access, f"{role}_dsn"))
        address = parts._replace(netloc=f"probe_{role}:{password}@{parts.netloc.rpartition('@')[2]}")
        self.files.put(f"MUSTER_POSTGRES_{role.upper()}_DSN", urlunsplit(address))

    @property
    def settings(self) -> Mapping[str, str | None]:
        """The settings of a process that logs in to Kafka with a password."""
        return {
            "MUSTER_POSTGRES_API_DSN": None,
            "MUSTER_POSTGRES_WORKER_DSN": None,
            "MUSTER_SECRETS_DIR": str(self.files.folder),
            "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "MUSTER_KAFKA_USERNAME": "probe",
            "MUSTER_KAFKA_CA_FILE": str(self.kafka.authority.certificate),
        }

    def settings_with(self, certificate: Certificate) -> Mapping[str, str | None]:
        """The same for one that presents a certificate."""
        return {
            **self.settings,
            "MUSTER_KAFKA_BOOTSTRAP": self.kafka.by_certificate,
            "MUSTER_KAFKA_SECURITY_PROTOCOL": "SSL",
            "MUSTER_KAFKA_CERTIFICATE_FILE": str(certificate.certificate),
            "MUSTER_KAFKA_KEY_FILE": str(certificate.key),
        }

    async def started(self, settings: Mapping[str, str | None]) -> tuple[Process, Process]:
        """The process that answers commands and relays, and the consumer, once they are ready."""
        api = await self.field.serve("relay", settings=settings)
        consumer = self.field.start("consumer", settings=settings)
        await self.field.ready(consumer)
        return api, consumer


@asynccontextmanager
async def secured_field(
    folder: Path,
    postgres: Server,
    prefix: str,
    tokens: TokenIssuer,
    seed: int,
    *,
    token_issuer: KafkaTokenIssuer | None = None,
) -> AsyncIterator[SecuredField]:
    """A field with a Kafka of its own, which may accept an issuer's tokens too, on a secured Postgres."""
    kafka = secured_kafka(folder / "kafka", login_seconds=LOGIN_SECONDS, token_issuer=token_issuer)
    await kafka.server.up()
    try:
        connection = kafka.security.administrator(kafka.bootstrap)
        async with Field(folder, postgres.address, connection, prefix, tokens, seed) as field:
            secured = SecuredField(field, kafka, folder)
            await secured.admit()
            yield secured
    finally:
        kafka.server.kill()


def secured_postgres(folder: Path) -> Server:
    """A Postgres that takes connections over TLS only."""
    authority = Authority.load(folder / "certificates")
    security = PostgresSecurity(authority.issue("postgres", lifetime=LIFETIME), authority.certificate)
    server = Postgres(folder / "postgres", free_port(), secrets.token_hex(16), security=security)
    server.prepare()
    program = Program("postgres", server.command(), server.dsn, stop_signal=signal.SIGINT, user=server.user)
    return Server(program, folder / "postgres.log", server.answers)


async def end_sessions(admin: "asyncpg.Connection[Any]", role: str) -> None:
    """End every session of a role."""
    await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)
