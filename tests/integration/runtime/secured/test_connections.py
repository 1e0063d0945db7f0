"""A service on secured servers: each way to authenticate works, and wrong credentials are refused with the reason."""

import asyncio
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_local.certificates import Authority
from muster_operator.databases.provisioning import drop, password_of, provision
from muster_runtime.clock import SystemClock
from muster_runtime.database.dbmate import migrate
from muster_runtime.database.transactions import Database
from muster_runtime.process.roles import Role
from muster_runtime.process.running import running
from muster_runtime.process.start_checks import StartRefused
from muster_runtime.secrets import FileSecret
from muster_runtime.settings import Settings
from tests.integration.runtime.core.looks import ready, seat, seats
from tests.integration.runtime.core.probe.service import SCHEMA, build
from tests.integration.runtime.secured.token_endpoint import TokenEndpoint
from tests.support.contexts import CONTEXT
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.secret_files import SecretFiles, new_password
from tests.support.secured_kafka import KafkaTokens, SecuredKafka
from tests.support.secured_postgres import SecuredPostgres
from tests.support.services import RunningService, ServiceRunner

Given = dict[str, Any]


def by_password(secured: SecuredKafka, password: str) -> Given:
    return {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_username": "probe",
        "kafka_password": password,
        "kafka_ca_file": str(secured.authority.certificate),
    }


async def works(probe: RunningService) -> None:
    """An event arrives from Kafka and takes effect; one of the service's own is published."""
    await eventually(lambda: ready(probe))
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: seats(probe, "NASA", 1))
    async with probe.runtime.database.write("DOE", context=CONTEXT) as uow:
        uow.publish(seat("DOE", "b"))

    async def published() -> bool:
        return "DOE" in [each.envelope.agency_id for each in await probe.published(SeatAssigned)]

    await eventually(published)


@pytest.mark.parametrize("way", ["password", "certificate", "token"])
async def test_a_service_works_on_secured_servers(
    way: str,
    run_secured: ServiceRunner,
    secured: SecuredKafka,
    kafka_tokens: KafkaTokens,
    password: str,
    files: SecretFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = by_password(secured, password)
    with TokenEndpoint(kafka_tokens, password) as endpoint:
        if way == "password":
            del given["kafka_password"]
            monkeypatch.setenv("MUSTER_SECRETS_DIR", str(files.put("MUSTER_KAFKA_PASSWORD", password).parent))
        elif way == "certificate":
            certificate = secured.authority.issue("probe")
            given = {
                "kafka_bootstrap": secured.by_certificate,
                "kafka_security_protocol": "SSL",
                "kafka_ca_file": given["kafka_ca_file"],
                "kafka_certificate_file": str(certificate.certificate),
                "kafka_key_file": str(certificate.key),
            }
        else:
            given |= {
                "kafka_sasl_mechanism": "OAUTHBEARER",
                "kafka_token_url": endpoint.url,
                "kafka_client_id": "probe",
                "kafka_client_secret": password,
            }
        probe = await run_secured(build, Settings, **given)
        await works(probe)
        if way == "token":
            assert endpoint.asked == 1


async def test_a_client_that_does_not_fit_is_refused_at_its_start_with_the_reason(
    run_secured: ServiceRunner, secured: SecuredKafka, password: str, tmp_path: Path
) -> None:
    given = by_password(secured, password)
    settings = (await run_secured(build, Settings, roles=frozenset(), **given)).runtime.settings
    stranger = Authority.load(tmp_path / "stranger")
    own = str(secured.authority.certificate)
    certificate = stranger.issue("probe")
    port = urlsplit(f"//{secured.bootstrap}").port
    by_certificate: Given = {"kafka_bootstrap": secured.by_certificate, "kafka_security_protocol": "SSL"}
    shown = {"kafka_certificate_file": str(certificate.certificate), "kafka_key_file": str(certificate.key)}
    refused: list[tuple[Given, str]] = [
        ({"kafka_password": new_password()}, "Kafka refuses the user probe: Authentication failed"),
        ({"kafka_username": "nobody"}, "Kafka refuses the user nobody: Authentication failed"),
        ({"kafka_ca_file": str(stranger.certificate)}, "the certificate of Kafka is not accepted: "),
        ({"kafka_bootstrap": f"127.1:{port}"}, "the certificate of Kafka is not accepted: Hostname mismatch"),
        ({"kafka_security_protocol": "SSL"}, "Kafka cannot be reached"),  # it waits for a login
        ({"kafka_security_protocol": "PLAINTEXT", "kafka_password": ""}, "Kafka cannot be reached"),
        (by_certificate, "Kafka refuses the certificate"),
        (by_certificate | shown, "Kafka refuses the certificate"),
        ({"kafka_ca_file": "/nowhere.pem"}, "the certificate files of Kafka cannot be used: "),
        ({"topic_prefix": "others."}, "Kafka denies Describe on topics: others.muster."),
    ]
    for change, reason in refused:
        changed = Settings.model_validate({**dict(settings), **given, "kafka_ca_file": own, **change})
        with pytest.raises(StartRefused) as refusal:
            async with running(build(changed), frozenset({Role.RELAY})):
                pass
        assert str(refusal.value).startswith(reason), change
        assert password not in str(refusal.value)


async def test_postgres_takes_tls_and_the_certificates_of_those_who_must_show_one(
    postgres_by_tls: SecuredPostgres, tmp_path: Path, topic_prefix: str
) -> None:
    admin = postgres_by_tls.server.address
    database = topic_prefix.rstrip(".")
    access = await provision(admin, database, "sealed", password_of(admin))
    try:
        connection = await asyncpg.connect(admin)
        rules = await connection.fetch("select distinct type, auth_method from pg_hba_file_rules")
        await connection.close()
        assert [tuple(rule) for rule in rules] == [("hostssl", "scram-sha-256")]
        certified = postgres_by_tls.certified(access.owner_dsn, "sealed_owner")
        await asyncio.to_thread(migrate, certified, "sealed", SCHEMA.migrations)
        plain = access.api_dsn.replace("sslmode=verify-full", "sslmode=disable")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
            await asyncpg.connect(plain)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="requires a valid client certificate"):
            await asyncpg.connect(access.owner_dsn)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match='for user "sealed_owner"'):
            await asyncpg.connect(postgres_by_tls.certified(access.owner_dsn, "somebody"))
        other = Authority.load(tmp_path / "stranger").certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(access.api_dsn.replace(str(postgres_by_tls.authority.certificate), str(other)))
    finally:
        await drop(admin, database)


async def test_a_rotated_password_of_postgres_is_waited_for(
    postgres_by_tls: SecuredPostgres, files: SecretFiles
) -> None:
    """The server has it first: a caller that needs a new session meanwhile waits for the file, and is not refused."""
    databases = Databases(postgres_by_tls.server.address)
    access = await databases.make("probe", SCHEMA.migrations)
    dsn = FileSecret("MUSTER_POSTGRES_API_DSN_FILE", files.put("dsn", access.api_dsn))
    database = await Database(dsn, "probe", SystemClock(), size=4).open()
    password = new_password()

    async def asked() -> bool:
        async with database.connection() as connection:
            await connection.execute("select pg_sleep(0.3)")  # so that the other callers need sessions of their own
        return True

    async with asyncio.TaskGroup() as tasks:
        admin = await asyncpg.connect(access.admin_dsn)
        await admin.execute(f"alter role probe_api password '{password}'")
        callers = [tasks.create_task(asked()) for _ in range(8)]
        await eventually(lambda: says(database, "Postgres refuses the password of probe_api: "))
        files.put("dsn", access.api_dsn.replace(password_of(access.api_dsn), password))
    assert all(caller.result() for caller in callers)
    assert (database.pool.get_size(), database.address.refusal) == (4, None)
    await admin.execute(f"alter role probe_api password '{password_of(access.api_dsn)}'")
    await admin.close()
    await database.close()
    await databases.drop_all()


async def says(database: Database, words: str) -> bool:
    return words in (database.address.refusal or "")
