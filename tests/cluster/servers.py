"""The servers in the cluster, installed with the run's own certificates and passwords."""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from string import Template

import asyncpg
import yaml
from cryptography.fernet import Fernet

from muster_contracts import SERVICES, topics
from muster_local.certificates import Authority
from muster_local.kafka_security import ADMIN, SCRAM
from muster_local.scopes import SCOPES
from muster_local.stack import Stack
from muster_operator.access.acls import acls_of_services
from muster_operator.access.administrator import Administrator
from muster_operator.databases.provisioning import Access, access_to, password_of, provision
from muster_operator.topics import create_topics
from muster_runtime.http.issuer import Issuer
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.connection import KafkaConnection
from tests.cluster.kube import MUSTER, ROOT, RUN, SERVERS, Kube, Thing, config_map, secret
from tests.support.eventually import eventually
from tests.support.services import ISSUER

MANIFESTS = ROOT / "infra" / "cluster" / "servers.yaml"
IMAGE = "muster/test-servers:0.1.0"
DOMAIN = f"{SERVERS}.svc.cluster.local"

# The path of the authority's certificate in a release's pods.
CA_IN_PODS = "/etc/muster/ca/ca.crt"

START_SECONDS = 180
TOKEN_LIFETIME = timedelta(hours=4)


@dataclass(frozen=True)
class Servers:
    """The installed servers and their credentials; every password is derived from `key`."""

    folder: Path
    brokers: int
    key: str = field(default_factory=lambda: secrets.token_hex(24))
    secret_key: str = field(default_factory=lambda: Fernet.generate_key().decode())

    @property
    def authority(self) -> Authority:
        return Authority.load(self.folder / "certificates")

    @property
    def mail(self) -> Path:
        """The folder in which the mail sink saves each message as a file."""
        return RUN / "mail"

    @property
    def issuer(self) -> Issuer:
        return Issuer.load(self.folder / "issuer.pem", issuer=ISSUER)

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{host}:9092" for host in self._hosts.values())

    @property
    def _hosts(self) -> Mapping[int, str]:
        """The Kafka nodes' host names by node ID."""
        return {number: f"kafka-{number}.kafka.{DOMAIN}" for number in range(1, self.brokers + 1)}

    @property
    def kafka(self) -> KafkaConnection:
        """The administrator's connection."""
        login = {"kafka_username": ADMIN, "kafka_password": self.password(ADMIN)}
        settings = {
            "kafka_bootstrap": self.bootstrap,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": SCRAM,
            "kafka_ca_file": str(self.authority.certificate),
        }
        return KafkaConnection(KafkaSettings.model_validate(settings | login))

    def operator(self, folder: Path) -> Mapping[str, str]:
        """The environment for the operator's command, with `folder` as its home."""
        stack = Installed(self)
        return {
            "MUSTER_HOME": str(folder),
            "MUSTER_TOKEN": self.token(),
            "MUSTER_ADMIN_DSN": stack.admin_dsn,
            "MUSTER_KAFKA_BOOTSTRAP": self.bootstrap,
            "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "MUSTER_KAFKA_USERNAME": ADMIN,
            "MUSTER_KAFKA_PASSWORD": self.password(ADMIN),
            "MUSTER_KAFKA_CA_FILE": str(self.authority.certificate),
            **{f"MUSTER_{service.upper()}_URL": stack.service_url(service) for service in SERVICES},
        }

    def password(self, user: str) -> str:
        return hmac.new(self.key.encode(), user.encode(), hashlib.sha256).hexdigest()

    def token(self) -> str:
        """A bearer token with every scope, for all agencies."""
        return self.issuer.token(SCOPES, agency=EVERY_AGENCY, lifetime=TOKEN_LIFETIME)

    async def install(self, kube: Kube) -> None:
        """Start the servers, and wait until they accept clients."""
        # Delete an earlier run's namespaces, whose passwords are lost.
        await kube.kubectl("delete", "namespace", SERVERS, MUSTER, "--ignore-not-found", "--timeout=120s")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.mail.mkdir(exist_ok=True)
        self.mail.chmod(0o777)  # the sink runs as another user
        await kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SERVERS}}])
        voters = " ".join(f"{number}@{host}:9093" for number, host in self._hosts.items())
        filled = Template(MANIFESTS.read_text("utf-8")).substitute(
            image=IMAGE, brokers=self.brokers, voters=voters, mail=self.mail
        )
        await kube.apply([*self._files(), *yaml.safe_load_all(filled)])
        await eventually(lambda: self._all_run(kube), timeout=START_SECONDS)

    async def provision(self, database: str = MUSTER, prefix: str = "") -> dict[str, Access]:
        """Create a release's database, roles, topics, ACLs, and users; return each service's DSNs."""
        accesses = {
            service: await provision(self.dsn("postgres"), database, service, self.password("postgres"))
            for service in SERVICES
        }
        await create_topics(self.kafka, prefix, topics().values())
        administrator = Administrator(self.kafka.librdkafka_options())
        await administrator.add(acls_of_services(topics().values(), prefix=prefix, sandbox=bool(prefix)))
        await self.add_users("{service}")
        return accesses

    def accesses(self, database: str) -> dict[str, Access]:
        """Each service's DSNs in a database that a Job provisions."""
        return {
            service: access_to(self.dsn("postgres"), database, service, self.password("postgres"))
            for service in SERVICES
        }

    async def add_users(self, user: str) -> None:
        """Create each service's Kafka user; its name has the service's name in place of {service}."""
        administrator = Administrator(self.kafka.librdkafka_options())
        await asyncio.gather(
            *(administrator.set_password(user.format(service=each), self.password(each)) for each in SERVICES)
        )

    def secrets_of_services(
        self, accesses: dict[str, Access], namespace: str = MUSTER, user: str = "{service}"
    ) -> list[Thing]:
        """The objects that a release needs: each service's secrets, its owner's, and the authority's certificate."""
        own = {
            "entitlements": {"MUSTER_SUBJECT_KEY": self.password("subjects")},
            "notify": {"MUSTER_SECRET_KEY": self.secret_key},
        }
        made = [
            config_map("ca", {"ca.crt": self.authority.certificate.read_text("utf-8")}, namespace),
            secret("muster-operator", {"MUSTER_TOKEN": self.token(), **self._administrator()}, namespace),
        ]
        for service, access in accesses.items():
            data = {
                "MUSTER_POSTGRES_API_DSN": self.in_pods(access.api_dsn),
                "MUSTER_POSTGRES_WORKER_DSN": self.in_pods(access.worker_dsn),
                "MUSTER_KAFKA_USERNAME": user.format(service=service),
                "MUSTER_KAFKA_PASSWORD": self.password(service),
            }
            made.append(secret(f"muster-{service}", data | own.get(service, {}), namespace))
            owner = {"MUSTER_POSTGRES_OWNER_DSN": self.in_pods(access.owner_dsn)}
            made.append(secret(f"muster-{service}-owner", owner, namespace))
        return made

    def secret_of_administrator(self, accesses: Mapping[str, Access], namespace: str) -> Thing:
        """The secret of the Job that provisions: an administrator's credentials, and the password of each role."""
        roles = {
            f"{service}_{role}": password_of(dsn)
            for service, access in accesses.items()
            for role, dsn in (("owner", access.owner_dsn), ("api", access.api_dsn), ("worker", access.worker_dsn))
        }
        return secret("muster-admin", self._administrator() | roles, namespace)

    def _administrator(self) -> dict[str, str]:
        return {
            "MUSTER_ADMIN_DSN": self.in_pods(self.dsn(MUSTER)),
            "MUSTER_KAFKA_USERNAME": ADMIN,
            "MUSTER_KAFKA_PASSWORD": self.password(ADMIN),
        }

    def in_pods(self, dsn: str) -> str:
        """A DSN with the authority's path as in a release's pods."""
        return dsn.replace(str(self.authority.certificate), CA_IN_PODS)

    def dsn(self, database: str) -> str:
        """The superuser's DSN of a database."""
        tls = f"sslmode=verify-full&sslrootcert={self.authority.certificate}"
        return f"postgresql://postgres:{self.password('postgres')}@postgres.{DOMAIN}:5432/{database}?{tls}"

    def _files(self) -> list[Thing]:
        authority = self.authority
        certificates = {
            "ca.pem": authority.certificate.read_text("utf-8"),
            "postgres.password": self.password("postgres"),
            "kafka.password": self.password(ADMIN),
        }
        for name, hosts in (("postgres", [f"postgres.{DOMAIN}"]), ("broker", [*self._hosts.values()])):
            made = authority.issue(name, hosts=hosts)
            certificates |= {path.name: path.read_text("utf-8") for path in (made.certificate, made.key, made.both)}
        return [
            config_map("keys", {"jwks.json": json.dumps(self.issuer.jwks())}, SERVERS),
            secret("certificates", certificates, SERVERS),
        ]

    async def _all_run(self, kube: Kube) -> bool:
        for kind in ("deployments", "statefulsets"):
            for found in (await kube.get(f"/apis/apps/v1/namespaces/{SERVERS}/{kind}"))["items"]:
                ready = found["status"].get("readyReplicas", 0)
                assert ready == found["spec"]["replicas"], await kube.troubles(SERVERS)
        connection = await asyncpg.connect(self.dsn("postgres"))
        await connection.close()
        brokers = await asyncio.to_thread(
            lambda: Administrator(self.kafka.librdkafka_options()).client.list_topics(timeout=5)
        )
        return len(brokers.brokers) == self.brokers


class Installed(Stack):
    """A release, presented as a Stack to the demo's proof. Its database is named after its namespace."""

    def __init__(self, servers: Servers, namespace: str = MUSTER, prefix: str = "") -> None:
        super().__init__(servers.folder / "home")
        self._servers = servers
        self._namespace = namespace
        self._prefix = prefix

    def service_url(self, name: str) -> str:
        return f"http://{MUSTER}-{name}.{self._namespace}.svc.cluster.local"

    def token(self, *scopes: str, agency: object = EVERY_AGENCY, subject: str = "operator") -> str:
        assert agency == EVERY_AGENCY
        return self._servers.issuer.token(scopes, agency=EVERY_AGENCY, subject=subject, lifetime=TOKEN_LIFETIME)

    @property
    def admin_dsn(self) -> str:
        return self._servers.dsn(self._namespace)

    @property
    def bootstrap(self) -> str:
        return self._servers.bootstrap

    @property
    def kafka(self) -> KafkaConnection:
        return self._servers.kafka

    @property
    def topic_prefix(self) -> str:
        return self._prefix

    @property
    def mail_dir(self) -> Path:
        return self._servers.mail
