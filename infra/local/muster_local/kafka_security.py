"""The security of an embedded Kafka node: TLS, how clients authenticate, and the superusers."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.connection import KafkaConnection

# The administrator: a SCRAM user and superuser. The principal of the brokers' certificate is a superuser too.
ADMIN = "admin"
_BROKER = "broker"

SCRAM = "SCRAM-SHA-512"
_TOKENS = "OAUTHBEARER"

_SASL_JAAS = "org.apache.kafka.common.security"
_VALIDATOR = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"


@dataclass(frozen=True)
class TokenIssuer:
    """Whose bearer tokens a node accepts: those for `audience`, signed by a key in the JWK set at `jwks_url`."""

    jwks_url: str
    issuer: str
    audience: str


@dataclass(frozen=True)
class KafkaSecurity:
    """How a node authenticates itself and its clients; no listener accepts anonymous clients.

    Clients log in at the node's port (SASL_SSL), or present a certificate at `certificate_port` (SSL). Nodes present
    the certificate in `keystore` to each other; its subject is `CN=broker`. A principal is `User:` plus the SCRAM
    user's name, the certificate's common name, or the token's `sub`. Kafka denies whatever no ACL allows. A client must
    log in again after `login_seconds`; with 0, a login lasts as long as its connection.
    """

    keystore: Path
    truststore: Path
    admin_password: str = field(repr=False)
    certificate_port: int | None = None
    login_seconds: float = 3600
    token_issuer: TokenIssuer | None = None

    def listeners(self, port: int | None) -> dict[str, int]:
        """A broker's listeners: port by name."""
        ports = {"SASL_SSL": port, "SSL": self.certificate_port}
        return {name: number for name, number in ports.items() if number}

    def properties(self, *, is_broker: bool) -> dict[str, object]:
        """The security properties in a node's configuration."""
        mechanisms = ",".join([SCRAM, _TOKENS] if self.token_issuer else [SCRAM])
        common: dict[str, object] = {
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{ADMIN};User:{_BROKER}",
            "ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)(,.*)?$/$1/",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.truststore,
            "ssl.enabled.protocols": "TLSv1.3",
        }
        if not is_broker:
            return common
        return {
            **common,
            "inter.broker.listener.name": "SSL",
            "sasl.enabled.mechanisms": mechanisms,
            "listener.name.sasl_ssl.ssl.client.auth": "none",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_SASL_JAAS}.scram.ScramLoginModule required;",
            "connections.max.reauth.ms": round(self.login_seconds * 1000),
            **self._token_properties(),
        }

    def java_options(self) -> list[str]:
        """JVM options: the URLs and files from which Kafka may load token keys."""
        if self.token_issuer is None:
            return []
        url = urlsplit(self.token_issuer.jwks_url)
        option = "-Dorg.apache.kafka.sasl.oauthbearer.allowed"
        files = [f"{option}.files={unquote(url.path)}"] if url.scheme == "file" else []
        return [f"{option}.urls={url.geturl()}", *files]

    def format_arguments(self) -> list[str]:
        """StorageTool's arguments that set the administrator's password, which must exist before the first start."""
        return ["--add-scram", f"{SCRAM}=[name={ADMIN},password={self.admin_password}]"]

    def administrator(self, bootstrap: str) -> KafkaConnection:
        """The Kafka administrator's connection."""
        return KafkaConnection(
            KafkaSettings(
                kafka_bootstrap=bootstrap,
                kafka_security_protocol="SASL_SSL",
                kafka_username=SecretStr(ADMIN),
                kafka_password=SecretStr(self.admin_password),
                kafka_ca_file=str(self.truststore),
            )
        )

    def _token_properties(self) -> dict[str, object]:
        if self.token_issuer is None:
            return {}
        prefix = "listener.name.sasl_ssl.oauthbearer.sasl"
        return {
            f"{prefix}.jaas.config": f"{_SASL_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
            f"{prefix}.server.callback.handler.class": _VALIDATOR,
            "sasl.oauthbearer.jwks.endpoint.url": self.token_issuer.jwks_url,
            "sasl.oauthbearer.expected.issuer": self.token_issuer.issuer,
            "sasl.oauthbearer.expected.audience": self.token_issuer.audience,
        }
