"""A broker with closed doors, of a test's own: whoever connects says who they are, and may do what an ACL allows."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster_local.certificates import Authority, Certificate
from muster_local.child import Program
from muster_local.kafka import Kafka
from muster_local.kafka_security import ADMIN, SCRAM, KafkaSecurity, TokenIssuer
from muster_operator.access.administrator import Administrator
from tests.faults.servers import Server, free_port


@dataclass(frozen=True)
class SecuredKafka:
    """A running broker: `server` takes passwords and tokens (SASL_SSL), `by_certificate` certificates (SSL)."""

    server: Server
    authority: Authority
    security: KafkaSecurity

    @property
    def bootstrap(self) -> str:
        """Where clients log in."""
        return self.server.address

    @property
    def by_certificate(self) -> str:
        """Where clients show a certificate."""
        return f"127.0.0.1:{self.security.certificate_port}"

    def administrator(self) -> Administrator:
        """The administrator's connection."""
        return Administrator(self.librdkafka(ADMIN, self.security.admin_password))

    def login(self, name: str, password: str) -> dict[str, Any]:
        """The options of an aiokafka client that logs in, and its broker."""
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=str(self.authority.certificate)),
            "sasl_mechanism": SCRAM,
            "sasl_plain_username": name,
            "sasl_plain_password": password,
        }

    def certificate(self, certificate: Certificate) -> dict[str, Any]:
        """The options of an aiokafka client that shows a certificate, and its broker."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(certificate.both)
        return {"bootstrap_servers": self.by_certificate, "security_protocol": "SSL", "ssl_context": context}

    def librdkafka(self, name: str, password: str) -> dict[str, Any]:
        """The same of a client of librdkafka that logs in."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.authority.certificate),
            "sasl.mechanism": SCRAM,
            "sasl.username": name,
            "sasl.password": password,
        }


@asynccontextmanager
async def secured_kafka(
    folder: Path, *, login_seconds: float = 0, token_issuer: TokenIssuer | None = None
) -> AsyncIterator[SecuredKafka]:
    """Run one in a folder."""
    authority = Authority.load(folder / "certificates")
    security = KafkaSecurity(
        authority.issue("broker").both,
        authority.certificate,
        admin_password="c0ffee" * 6,
        certificate_port=free_port(),
        login_seconds=login_seconds,
        token_issuer=token_issuer,
    )
    kafka = Kafka(folder / "kafka", free_port(), free_port(), security=security)
    kafka.prepare()
    server = Server(Program("kafka", kafka.command(), kafka.bootstrap), folder / "kafka.log", kafka.answers)
    try:
        await server.up()
        yield SecuredKafka(server, authority, security)
    finally:
        server.kill()
