"""A test's own secured broker: every client authenticates, and may do only what an ACL allows."""

import json
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from muster_local.certificates import Authority, Certificate
from muster_local.child import Program
from muster_local.kafka import Kafka
from muster_local.kafka_security import ADMIN, SCRAM, KafkaSecurity, TokenIssuer
from muster_operator.access.acls import Acl, Kind, Operation
from muster_operator.access.administrator import Administrator
from muster_runtime.clock import SystemClock
from tests.faults.servers import Server, free_port


@dataclass(frozen=True)
class SecuredKafka:
    """A broker: `server` accepts passwords and tokens (SASL_SSL), `by_certificate` accepts certificates (SSL)."""

    server: Server
    authority: Authority
    security: KafkaSecurity

    @property
    def bootstrap(self) -> str:
        """The address for clients that log in."""
        return self.server.address

    @property
    def by_certificate(self) -> str:
        """The address for clients with a certificate."""
        return f"127.0.0.1:{self.security.certificate_port}"

    def administrator(self) -> Administrator:
        """The administrator's connection."""
        return Administrator(self.librdkafka(ADMIN, self.security.admin_password))

    def login(self, name: str, password: str) -> dict[str, Any]:
        """The aiokafka options, with the broker's address, of a client that logs in."""
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=str(self.authority.certificate)),
            "sasl_mechanism": SCRAM,
            "sasl_plain_username": name,
            "sasl_plain_password": password,
        }

    def certificate(self, certificate: Certificate) -> dict[str, Any]:
        """The aiokafka options, with the broker's address, of a client with a certificate."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(certificate.both)
        return {"bootstrap_servers": self.by_certificate, "security_protocol": "SSL", "ssl_context": context}

    def librdkafka(self, name: str, password: str) -> dict[str, Any]:
        """The librdkafka options of a client that logs in."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.authority.certificate),
            "sasl.mechanism": SCRAM,
            "sasl.username": name,
            "sasl.password": password,
        }

    def token(self, name: str, provider: "KafkaTokens", **claims: Any) -> dict[str, Any]:
        """The aiokafka options, with the broker's address, of a client with a bearer token."""
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=str(self.authority.certificate)),
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_provider": _Provider(provider.token(name, **claims)),
        }


class KafkaTokens:
    """A token issuer with its keys in a file. Kafka cannot verify the Ed25519 signatures of the services' issuer."""

    def __init__(self, folder: Path) -> None:
        self._key = RSAKey.generate_key(2048, auto_kid=True)
        self._jwks = folder / "jwks.json"
        self._jwks.write_text(json.dumps(KeySet([self._key]).as_dict(private=False)), "utf-8")

    @property
    def issuer(self) -> TokenIssuer:
        """The issuer in the broker's terms."""
        return TokenIssuer(self._jwks.as_uri(), "https://identity.test", "kafka")

    def token(self, name: str, **claims: Any) -> str:
        """A token of `name`, valid for an hour; `claims` replace others."""
        now = int(SystemClock().now().timestamp())
        usual = {"iss": self.issuer.issuer, "aud": self.issuer.audience, "sub": name, "iat": now, "exp": now + 3600}
        return jwt.encode({"alg": "RS256", "kid": self._key.kid}, usual | claims, self._key)


class _Provider(AbstractTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


def secured_kafka(
    folder: Path, *, login_seconds: float = 3600, token_issuer: TokenIssuer | None = None
) -> SecuredKafka:
    """Prepare a broker in a folder; `await server.up()` starts it, `server.kill()` kills it."""
    authority = Authority.load(folder / "certificates")
    security = KafkaSecurity(
        authority.issue("broker").both,
        authority.certificate,
        admin_password=secrets.token_hex(16),
        certificate_port=free_port(),
        login_seconds=login_seconds,
        token_issuer=token_issuer,
    )
    kafka = Kafka(folder / "kafka", free_port(), free_port(), security=security)
    kafka.prepare()
    server = Server(Program("kafka", kafka.command(), kafka.bootstrap), folder / "kafka.log", kafka.answers)
    return SecuredKafka(server, authority, security)


def rights(name: str, prefix: str) -> Sequence[Acl]:
    """The ACLs of a service whose topics, group, and transactional ID start with the prefix."""
    wanted = {
        Kind.TOPIC: (Operation.READ, Operation.WRITE, Operation.DESCRIBE_CONFIGS),
        Kind.GROUP: (Operation.READ,),
        Kind.TRANSACTIONAL_ID: (Operation.WRITE,),
    }
    return [
        Acl(f"User:{name}", kind, prefix, operation, prefixed=True)
        for kind, operations in wanted.items()
        for operation in operations
    ]
