"""Checks before a process starts: its settings, its topics, and the servers it needs."""

import asyncpg
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from muster_contracts import topics
from muster_runtime.database.pooler import WAIT_SECONDS, shares_connections
from muster_runtime.database.schema import MigrationsPending, SchemaTooNew
from muster_runtime.database.sessions import NO_ADDRESS, REFUSED
from muster_runtime.database.transactions import Database
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles, RolesRefused
from muster_runtime.messaging.connection import CertificatesUnusable, KafkaConnection
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.service import Service
from muster_runtime.settings import Settings


class StartRefused(Exception):
    """The process cannot start with its configuration; the message says what to do."""


def require_issuer(settings: Settings) -> KeySource:
    """The source of the issuer's keys. Raises StartRefused without an issuer."""
    if not settings.oidc_issuer or not settings.oidc_audience:
        raise StartRefused("MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set")
    try:
        return KeySource(settings.oidc_jwks, issuer=settings.oidc_issuer)
    except ValueError as error:
        raise StartRefused(str(error)) from None


def require_roles(settings: Settings) -> Roles:
    """The callers' roles. Raises StartRefused if the roles file is invalid."""
    try:
        return Roles.load(settings.roles_file)
    except RolesRefused as error:
        raise StartRefused(f"MUSTER_ROLES_FILE: {error}") from None


async def require_topics(service: Service, kafka: KafkaConnection) -> None:
    """Raise StartRefused if a topic is missing or unsafe. Only an operator creates or corrects topics."""
    if unknown := sorted(service.topics - topics().keys()):
        raise StartRefused(f"there is no contract for the topics {', '.join(unknown)}")
    try:
        there = KafkaTopics(kafka, service.settings, service.name, service.topics)
    except CertificatesUnusable as error:
        raise StartRefused(str(error)) from None
    try:
        await there.start()
        faults = await there.look()
    except (KafkaError, OSError, TimeoutError) as error:
        reason = await kafka.failure(error)
        raise StartRefused(f"{reason}, at {kafka.bootstrap}") from None
    finally:
        await there.stop()
    if faults.forbidden:
        raise StartRefused(f"Kafka denies Describe on topics: {', '.join(faults.forbidden)}")
    if faults.missing:
        raise StartRefused(f"topics are missing: {', '.join(faults.missing)}; create them with `muster topics apply`")
    if faults.unsafe:
        losses = "; ".join(faults.losses)
        raise StartRefused(f"topics would lose events: {losses}; set them with `muster topics apply`")


async def require_identity(service: Service, database: Database) -> None:
    """Raise StartRefused if a setting that must never change differs from the first start."""
    if service.identity is None:
        return
    try:
        async with database.connection() as connection:
            reason = await service.identity(connection)
    except (MigrationsPending, SchemaTooNew) as error:
        raise StartRefused(str(error)) from None
    if reason is not None:
        raise StartRefused(reason)


async def require_sessions(setting: str, dsn: SecretStr) -> None:
    """Raise StartRefused if Postgres is unavailable, or a pooler shares a server connection between sessions."""
    if not dsn.get_secret_value():
        raise StartRefused(f"{setting} is not set")
    try:
        shared = await shares_connections(dsn)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).partition("\n")[0] or f"no answer within {WAIT_SECONDS} s"
        how = "refuses" if isinstance(error, REFUSED) else "cannot be reached at"
        raise StartRefused(f"Postgres {how} {setting}: {reason}") from None
    except ValueError:  # its message may quote part of the password
        raise StartRefused(f"{setting} is {NO_ADDRESS}") from None
    if shared:
        raise StartRefused(
            f"{setting} points to a pooler in transaction mode, which does not support LISTEN, prepared statements, "
            "and session settings: set its pool_mode to session, or connect to Postgres directly"
        )
