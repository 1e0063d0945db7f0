"""The settings that all services share, from the environment (prefix MUSTER_), immutable."""

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.secrets import PREFIX, address_weakness, file_secrets, weakness


class Settings(KafkaSettings):
    """A service's settings. A service with settings of its own subclasses it."""

    environment: Literal["production", "sandbox"] = "production"
    instance: str = Field(
        default="",
        validate_default=True,
        description="This process's name in leases and logs. Default: host name, process ID, and a random part.",
    )

    postgres_api_dsn: SecretStr = Field(
        default=SecretStr(""), description="The API role's DSN, of Postgres or of a PgBouncer in session mode."
    )
    postgres_worker_dsn: SecretStr = Field(
        default=SecretStr(""), description="The worker role's DSN, of Postgres or of a PgBouncer in session mode."
    )
    postgres_owner_dsn: SecretStr = Field(
        default=SecretStr(""), description="The owner role's DSN, for migrations: of Postgres itself, not of PgBouncer."
    )
    postgres_pool_size: int = Field(default=10, ge=2, le=100)

    allow_plaintext: bool = Field(
        default=False,
        description="Allow connections without TLS in production. Set it only if the network itself encrypts, as a "
        "service mesh does.",
    )
    topic_prefix: str = Field(
        default="", description="The prefix of the names of topics, groups, and transactional IDs."
    )

    topic_partitions: int | None = Field(
        default=None,
        ge=1,
        description="The maximum number of partitions of a topic, for a sandbox with fewer than the contracts specify.",
    )

    http_host: str = Field(
        default="127.0.0.1", description="The address to listen at. Empty: every address, of IPv4 and IPv6."
    )
    http_port: int = Field(default=8000, ge=0, le=65535)
    http_concurrency: int = Field(
        default=500, ge=1, description="Maximum requests in progress, shared by all tenants; any more get 429."
    )
    http_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=4 * 1024 * 1024, description="Maximum bytes of request bodies in memory."
    )
    http_connections: int = Field(
        default=4_000, ge=1, description="Maximum open connections. At the limit, the longest-idle one is closed."
    )
    http_connections_per_address: int = Field(
        default=1_000,
        ge=1,
        description="Maximum open connections from one address. Behind a proxy, set it to the total limit.",
    )
    http_token_rate: int = Field(
        default=300, ge=1, description="Maximum requests per second of one client: a token's subject and agencies."
    )
    http_agency_rate: int = Field(
        default=600, ge=1, description="Maximum requests per second of all clients of one agency."
    )
    http_behind_tls: bool = Field(
        default=False, description="Whether a proxy in front terminates TLS. Browsers are then told to use it (HSTS)."
    )
    agency_queue: int = Field(
        default=250, ge=1, description="Maximum commands of one agency in progress or waiting; any more get 429."
    )

    outbox_rows: int = Field(
        default=1_000_000, ge=1, description="Maximum rows in the outbox. At the limit, commands get 429."
    )

    idempotency_retention_days: int = Field(
        default=7,
        ge=1,
        le=3660,
        description="How many days the reply to a command is kept under its Idempotency-Key. After that, a request "
        "with the same key is executed again.",
    )

    audit_seal_seconds: float = Field(
        default=60,
        gt=0,
        le=240,
        description="Seconds until new audit rows are sealed. A change to a row before then goes undetected.",
    )

    audit_retention_days: int | None = Field(
        default=None,
        ge=365,
        le=36600,
        description="Days after which audit rows are deleted, by whole seals. By default, they are kept.",
    )
    personal_reads_per_minute: int = Field(
        default=600,
        ge=60,
        description="Maximum reads of names or addresses per minute of one client: a token's subject and agencies.",
    )
    personal_read_retention_days: int = Field(
        default=365, ge=1, le=3660, description="How many days to keep records of who read whose name or address."
    )

    consumer_batch_records: int = Field(
        default=1_000, ge=1, le=10_000, description="Maximum records in one transaction."
    )
    consumer_stuck_seconds: float = Field(
        default=60, gt=0, description="Seconds without progress after which a consumer that is behind ends its process."
    )
    parked_records: int = Field(
        default=100_000, ge=1, description="Maximum records in a parked stream. At the limit, its partition is paused."
    )
    parked_streams: int = Field(
        default=50,
        ge=1,
        description="How many streams, and how many deadlines, may be parked within ten minutes because a handler "
        "refused them. At the limit, no more are parked: they are retried.",
    )

    oidc_issuer: str = ""
    oidc_audience: str = "muster"
    oidc_jwks: str = Field(
        default="",
        description="The URL or the file path of the issuer's keys. Default: the URL in the issuer's metadata, if the "
        "issuer is a URL.",
    )
    roles_file: str = Field(
        default="", description="A TOML file of roles, read at startup. Default: the file in the runtime's package."
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("instance")
    @classmethod
    def _no_two_processes_have_one_name(cls, instance: str) -> str:
        """Make the name unique: two replicas with the same name could both lead."""
        return instance or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    @field_validator("oidc_jwks", "kafka_token_url")
    @classmethod
    def _no_secret_is_in_an_address(cls, address: str) -> str:
        """Refuse a user or password in an address: addresses are logged and shown in readiness."""
        if "@" in urlsplit(address).netloc:
            raise ValueError("must have no user and no password")
        return address

    @model_validator(mode="after")
    def _production_has_the_contracts_partitions(self) -> Self:
        if self.environment == "production" and self.topic_partitions is not None:
            raise ValueError("MUSTER_TOPIC_PARTITIONS is for a sandbox: production uses the contracts' numbers")
        return self

    @model_validator(mode="after")
    def _a_batch_fits_into_a_parked_stream(self) -> Self:
        if self.parked_records < self.consumer_batch_records:
            raise ValueError("MUSTER_PARKED_RECORDS must not be below MUSTER_CONSUMER_BATCH_RECORDS")
        return self

    @model_validator(mode="after")
    def _production_is_secured(self) -> Self:
        if self.environment == "production":
            for name, reason in self._insecure():
                raise ValueError(f"{PREFIX}{name.upper()}: {reason}")
        return self

    def _insecure(self) -> Iterator[tuple[str, str]]:
        """The settings that production refuses, and why. An empty one is refused where it is needed."""
        for name in ("postgres_api_dsn", "postgres_worker_dsn", "postgres_owner_dsn"):
            dsn = getattr(self, name).get_secret_value()
            if dsn and (reason := address_weakness(dsn, allow_plaintext=self.allow_plaintext)):
                yield name, reason
        if self.kafka_bootstrap and self.kafka_security_protocol == "PLAINTEXT" and not self.allow_plaintext:
            yield "kafka_security_protocol", "production requires SSL or SASL_SSL, or MUSTER_ALLOW_PLAINTEXT=true"
        for name in ("oidc_issuer", "oidc_jwks", "kafka_token_url"):
            if urlsplit(getattr(self, name)).scheme == "http" and not self.allow_plaintext:
                yield name, "production requires https, or MUSTER_ALLOW_PLAINTEXT=true"
        for name in ("kafka_password", "kafka_client_secret"):
            secret = getattr(self, name).get_secret_value()
            if secret and (reason := weakness(secret)):
                yield name, reason

    @model_validator(mode="after")
    def _a_replaced_secret_is_checked_like_the_first(self) -> Self:
        for name, secret in file_secrets(dict(self)):
            if secret.refuse is None:
                secret.refuse = partial(self._check, name)
        return self

    def _check(self, name: str, text: str) -> None:
        """Raise ValidationError if the settings would be invalid with another value of a secret."""
        values: dict[str, Any] = {**dict(self), name: SecretStr(text)}
        BaseModel.__init__(type(self).__new__(type(self)), **values)  # without reading the environment again

    @property
    def warnings(self) -> Sequence[str]:
        """Why new contents of secrets' files are not used, if so."""
        secrets = [secret for _, secret in file_secrets(dict(self))]
        for secret in secrets:
            secret.get_secret_value()
        return [secret.rejection for secret in secrets if secret.rejection is not None]
