"""What a secured stack adds to a plain one: certificates, Kafka users with ACLs, secret files, and an OIDC provider.

All of its files are in the stack's home.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from muster_contracts import topics
from muster_local.certificates import Authority
from muster_local.child import Program
from muster_local.home import APPROVER, OPERATOR, PROVIDER, Credentials, Home, Installation
from muster_local.kafka_security import ADMIN, SCRAM, KafkaSecurity
from muster_local.oidc import Automation, Lifetimes, provider_program, write_configuration
from muster_local.postgres import PostgresSecurity
from muster_local.scopes import SCOPES
from muster_local.servers import CERTIFICATES
from muster_operator.access.acls import acls_of_services
from muster_operator.access.administrator import Administrator
from muster_operator.private import open_private
from muster_operator.session.oauth import Client
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.secrets import FOLDER

_TOKEN_LIFETIME = timedelta(days=1)

# The settings that are secrets: a service receives them only in files.
_SECRETS = (
    "MUSTER_POSTGRES_API_DSN",
    "MUSTER_POSTGRES_WORKER_DSN",
    "MUSTER_KAFKA_PASSWORD",
    "MUSTER_SUBJECT_KEY",
    "MUSTER_SECRET_KEY",
)


class Secured:
    """One secured stack's certificates and credentials."""

    def __init__(self, home: Home, installation: Installation, credentials: Credentials) -> None:
        self._home = home
        self._ports = installation.ports
        self._credentials = credentials

    @property
    def _certificates(self) -> Path:
        return self._home.path / "certificates"

    def postgres(self) -> PostgresSecurity:
        """Postgres's security settings, with a new certificate at each start."""
        authority = Authority.load(self._certificates)
        return PostgresSecurity(authority.issue("postgres"), authority.certificate)

    def kafka(self) -> KafkaSecurity:
        """Kafka's security settings, with a new certificate at each start and the administrator's password."""
        authority = Authority.load(self._certificates)
        return KafkaSecurity(
            authority.issue("broker").both,
            authority.certificate,
            self._credentials.kafka_password,
            certificate_port=self._ports[CERTIFICATES],
        )

    def provider(self) -> Program:
        """The identity provider. Its configuration and signing key are created once."""
        path = self._home.path / "provider.json"
        if not path.exists():
            claims = {"agency": EVERY_AGENCY}
            automations = {
                subject: Automation(self._client_secret(subject), claims, " ".join(SCOPES))
                for subject in (OPERATOR, APPROVER)
            }
            write_configuration(path, login_clients=[], accounts={}, automations=automations)
        seconds = round(_TOKEN_LIFETIME.total_seconds())
        return provider_program(path, self._ports[PROVIDER], Lifetimes(access_token=seconds))

    def token(self, scopes: Iterable[str], subject: str = OPERATOR) -> str:
        """A bearer token that the provider issues to the operator or the approver, by client credentials."""
        client = Client(self._issuer, subject, self._client_secret(subject), " ".join(scopes))
        return client.by_credentials().access_token

    def administrator(self, bootstrap: str) -> dict[str, str]:
        """The Kafka administrator's connection, as fields of KafkaSettings."""
        return {"kafka_bootstrap": bootstrap, **self._login(ADMIN, self._credentials.kafka_password)}

    def connection(self, bootstrap: str) -> KafkaConnection:
        """The Kafka administrator's connection."""
        return KafkaConnection(KafkaSettings.model_validate(self.administrator(bootstrap)))

    async def admit(self, bootstrap: str, services: Iterable[str]) -> None:
        """Create a Kafka user with a password for each service, and the ACLs that follow from the contracts' topics."""
        administrator = Administrator(self.connection(bootstrap).librdkafka_options())
        await administrator.add(acls_of_services(topics().values(), sandbox=True))
        await asyncio.gather(
            *(administrator.set_password(service, self._kafka_password(service)) for service in services)
        )

    def settings_of(self, service: str, settings: Mapping[str, str], *, write: bool) -> dict[str, str]:
        """A service's settings on a secured stack. Its secrets are in files, in the service's own folder.

        Only a start may `write` the files: afterward, somebody may have rotated a secret.
        """
        login = self._login(service, self._kafka_password(service))
        closed = {f"MUSTER_{name.upper()}": value for name, value in login.items()}
        every = {**settings, **closed, "MUSTER_OIDC_ISSUER": self._issuer}
        del every["MUSTER_OIDC_JWKS"]  # the provider's metadata names its keys' URL
        folder = self._home.path / "secrets" / service
        secrets = {name: every.pop(name) for name in _SECRETS if name in every}
        if write:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, secret in secrets.items():
                _put(folder / name, secret)
        return {**every, FOLDER: str(folder)}

    @property
    def _issuer(self) -> str:
        return f"http://127.0.0.1:{self._ports[PROVIDER]}"

    def _login(self, user: str, password: str) -> dict[str, str]:
        return {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": SCRAM,
            "kafka_username": user,
            "kafka_password": password,
            "kafka_ca_file": str(self._certificates / "ca.pem"),
        }

    def _client_secret(self, subject: str) -> str:
        secret = self._credentials.client_secret
        return (
            secret if subject == OPERATOR else hmac.new(secret.encode(), subject.encode(), hashlib.sha256).hexdigest()
        )

    def _kafka_password(self, service: str) -> str:
        return hmac.new(self._credentials.kafka_password.encode(), service.encode(), hashlib.sha256).hexdigest()


def secured(home: Home, installation: Installation) -> Secured | None:
    """A secured stack's certificates and credentials; None for a plain stack."""
    return None if installation.secured is None else Secured(home, installation, installation.secured)


def _put(path: Path, secret: str) -> None:
    """Write a secret. Leaves an identical file alone, because processes reload a replaced file."""
    if path.exists() and path.read_text("utf-8") == secret:
        return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "x", encoding="utf-8", opener=open_private) as file:
        file.write(secret)
    new.replace(path)
