"""`muster preflight` on secured servers: it reports what is right, and names each thing that is wrong."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka.admin import NewTopic
from pydantic import SecretStr
from typer.testing import CliRunner

from muster_contracts import ClockMoved, topics
from muster_local.kafka_security import ADMIN
from muster_local.programs import migrations_of
from muster_operator.access.acls import Acl, Kind, Operation, acls_of_services
from muster_operator.cli import app
from muster_operator.databases.provisioning import Access, password_of, provision
from muster_operator.preflight.findings import Check, Status
from muster_operator.preflight.kafka import check_brokers, check_kafka
from muster_operator.preflight.subjects import Subject
from muster_operator.releases import read_releases
from muster_runtime.database.dbmate import migrate
from muster_runtime.messaging.connection import LOGIN_SECONDS, KafkaConnection
from muster_runtime.settings import Settings
from tests.faults.servers import kafka
from tests.support.eventually import eventually
from tests.support.secret_files import SecretFiles, new_password
from tests.support.secured_kafka import SecuredKafka, secured_kafka
from tests.support.secured_postgres import SecuredPostgres, secured_postgres
from tests.support.services import ISSUER, TokenIssuer

FENCE = "Write transactional-id"


@pytest.fixture(scope="module")
def postgres_by_tls() -> Iterator[SecuredPostgres]:
    with secured_postgres() as postgres:
        yield postgres


@dataclass
class Installation:
    """Entitlements as it would be installed: its database, its rights on Kafka, and its secrets."""

    access: Access
    kafka: SecuredKafka
    prefix: str
    files: SecretFiles
    environment: dict[str, str]
    acls: list[Acl]

    def preflight(self, **environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
        """The exit status, and the findings by check: its status, and what is wrong."""
        result = CliRunner().invoke(
            app, ["preflight", "--service=entitlements", "--json"], env={**self.environment, **environment}
        )
        assert result.stdout, result.stderr or result.exception
        found: dict[str, tuple[str, str]] = {}
        for each in json.loads(result.stdout)["checks"]:
            before = found.get(each["check"], ("", ""))
            status = "failed" if before[0] == "failed" else each["status"]
            found[each["check"]] = (status, f"{before[1]}{each['found']}; {each['remedy']}\n")
        return result.exit_code, found


@pytest.fixture
async def installation(
    postgres_by_tls: SecuredPostgres, secured: SecuredKafka, topic_prefix: str, tokens: TokenIssuer, tmp_path: Path
) -> AsyncIterator[Installation]:
    dsn = postgres_by_tls.server.address
    access = await provision(dsn, f"muster_{secrets.token_hex(4)}", "entitlements", password_of(dsn))
    await asyncio.to_thread(migrate, access.owner_dsn, "entitlements", migrations_of("entitlements"))
    administrator = secured.administrator()
    wanted = acls_of_services(topics().values(), prefix=topic_prefix)
    acls = [acl for acl in wanted if acl.principal == "User:entitlements"]
    clock = Acl("User:entitlements", Kind.TOPIC, topic_prefix + ClockMoved.topic, Operation.READ)
    for future in administrator.client.create_topics(
        [
            NewTopic(topic_prefix + name, topic.partitions, 1, config={**topic.settings, "min.insync.replicas": "1"})
            for name, topic in topics().items()
        ]
    ).values():
        await administrator.ask(future)
    await administrator.add([*acls, clock])
    password = new_password()
    await administrator.set_password("entitlements", password)
    files = SecretFiles(tmp_path / "secrets" / "entitlements")
    for name, text in {
        "POSTGRES_API_DSN": access.api_dsn,
        "POSTGRES_WORKER_DSN": access.worker_dsn,
        "KAFKA_USERNAME": "entitlements",
        "KAFKA_PASSWORD": password,
        "SUBJECT_KEY": secrets.token_urlsafe(32),
    }.items():
        files.put(f"MUSTER_{name}", text)
    environment = {
        "MUSTER_HOME": str(tmp_path / "home"),
        "MUSTER_SECRETS_DIR": str(tmp_path / "secrets"),
        "MUSTER_KAFKA_BOOTSTRAP": secured.bootstrap,
        "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MUSTER_KAFKA_CA_FILE": str(secured.authority.certificate),
        "MUSTER_TOPIC_PREFIX": topic_prefix,
        "MUSTER_OIDC_ISSUER": ISSUER,
        "MUSTER_OIDC_JWKS": str(tokens.jwks),
        "COLUMNS": "400",
    }
    yield Installation(access, secured, topic_prefix, files, environment, acls)
    await administrator.remove([*acls, clock])
    await administrator.remove_user("entitlements")


async def _until(installation: Installation, acls: list[Acl]) -> None:
    """Wait until the broker knows these ACLs: the controller answers earlier."""
    administrator = installation.kafka.administrator()

    async def known() -> bool:
        there = await administrator.acls()
        return {acl for acl in installation.acls if acl in there} == set(acls)

    await eventually(known, timeout=60)


async def test_each_thing_that_is_wrong_is_named(installation: Installation) -> None:
    await _until(installation, installation.acls)
    status, found = await asyncio.to_thread(installation.preflight)
    assert {check: status for check, (status, _) in found.items()} == dict.fromkeys(
        (
            "settings",
            "postgres as api",
            "postgres as worker",
            "schema",
            "clock of postgres",
            "kafka",
            "topics",
            "kafka permissions",
            "issuer",
        ),
        "ok",
    ) | {"topics of the cluster": "warning"}, found
    assert status == 0
    # A sandbox's services also read its clock's topic, but need not see the topic's settings.
    sandboxed, found = await asyncio.to_thread(installation.preflight, MUSTER_ENVIRONMENT="sandbox")
    assert (sandboxed, found["topics"][0], found["kafka permissions"][0]) == (0, "ok", "ok"), found

    access = installation.access
    stranger = access.api_dsn.replace(password_of(access.api_dsn), new_password())
    for check, said, environment in (
        ("postgres as api", "refuses the password of entitlements_api", {"POSTGRES_API_DSN": stranger}),
        (
            "postgres as worker",
            "the role is entitlements_owner: must be entitlements_worker",
            {"POSTGRES_WORKER_DSN": access.owner_dsn},
        ),
        (
            "settings",
            "MUSTER_POSTGRES_API_DSN: production requires sslmode=verify-full",
            {"POSTGRES_API_DSN": access.api_dsn.partition("?")[0]},
        ),
        ("issuer", "cannot be read", {"OIDC_JWKS": "/no/such/file"}),
        ("topics", "Kafka denies Describe on: ", {"TOPIC_PREFIX": f"{installation.prefix}x."}),
        ("kafka", "Kafka refuses the user entitlements", {"KAFKA_PASSWORD": new_password()}),
    ):
        variables = {f"MUSTER_{name}": value for name, value in environment.items()}
        status, found = await asyncio.to_thread(installation.preflight, **variables)
        assert (status, found[check][0]) == (1, "failed"), found
        assert said in found[check][1]

    taken = [acl for acl in installation.acls if acl.kind is Kind.TRANSACTIONAL_ID or acl.operation == "Read"]
    await installation.kafka.administrator().remove(taken)
    await _until(installation, [acl for acl in installation.acls if acl not in taken])
    _, found = await asyncio.to_thread(installation.preflight)
    for acl in taken:
        assert acl.name in found["topics"][1] + found["kafka permissions"][1], acl
    assert FENCE in found["kafka permissions"][1]
    await installation.kafka.administrator().add(taken)
    await _until(installation, installation.acls)
    own = f"{installation.prefix}muster.entitlements.seat"
    administrator = installation.kafka.administrator()
    await administrator.ask(administrator.client.delete_topics([own])[own])

    async def is_missing() -> bool:
        return f"missing: {own}" in (await asyncio.to_thread(installation.preflight))[1]["topics"][1]

    await eventually(is_missing, timeout=60)

    async def schema(sql: str) -> None:
        connection = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "entitlements"})
        await connection.execute(sql)
        await connection.close()

    await schema("insert into schema_migrations (version) values ('20990101000000')")
    assert "unknown to this muster" in (await asyncio.to_thread(installation.preflight))[1]["schema"][1]
    await schema("delete from schema_migrations where version = '20990101000000'")
    needed = read_releases()[version("muster-operator")]["entitlements"].schema_min
    await schema(f"delete from schema_migrations where version = '{needed}'")  # a later one stays
    lacking = (await asyncio.to_thread(installation.preflight))[1]["schema"]
    assert (lacking[0], f"needs {needed}; python -m muster_entitlements migrate" in lacking[1]) == ("warning", True)
    await schema("delete from schema_migrations where version > '20250814'")
    behind = (await asyncio.to_thread(installation.preflight))[1]["schema"]
    assert (behind[0], "python -m muster_entitlements migrate" in behind[1]) == ("warning", True)
    (installation.files.folder / "MUSTER_POSTGRES_API_DSN").unlink()
    missing = (await asyncio.to_thread(installation.preflight))[1]["postgres as api"]
    assert missing[0] == "failed"
    assert "MUSTER_POSTGRES_API_DSN is not set" in missing[1]


async def test_before_the_first_migration_nothing_is_wrong(installation: Installation) -> None:
    """The chart's preflight comes between provisioning and migrations: the roles may not look into the schema yet."""
    await _until(installation, installation.acls)
    admin = await asyncpg.connect(installation.access.admin_dsn)
    await admin.execute("drop schema entitlements cascade; create schema entitlements authorization entitlements_owner")
    await admin.close()
    status, found = await asyncio.to_thread(installation.preflight)
    assert (status, found["postgres as worker"][0], found["schema"][0]) == (0, "ok", "warning"), found
    assert found["schema"][1].startswith("there are no migrations yet")


async def test_a_broker_that_keeps_a_revoked_user_logged_in_is_named(tmp_path: Path) -> None:
    endless = secured_kafka(tmp_path, login_seconds=0)
    try:
        await endless.server.up()
        settings = Settings(
            environment="sandbox",
            kafka_bootstrap=endless.bootstrap,
            kafka_security_protocol="SASL_SSL",
            kafka_ca_file=str(endless.authority.certificate),
            kafka_username=SecretStr(ADMIN),
            kafka_password=SecretStr(endless.security.admin_password),
        )
        finding = await anext(check_kafka(Subject("billing", settings)))
    finally:
        endless.server.kill()
    assert (finding.check, finding.status) == ("kafka", Status.WARNING)
    assert finding.found == f"connects as admin, and stays logged in if the user is revoked ({endless.bootstrap})"
    assert finding.remedy.startswith("set connections.max.reauth.ms on the brokers")


async def test_each_broker_that_was_not_checked_is_named_and_none_waits_for_another(tmp_path: Path) -> None:
    broker = kafka(tmp_path)
    both = asyncio.Barrier(2)

    async def close_once_both_wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await both.wait()
        writer.close()

    silent = await asyncio.start_server(close_once_both_wait, "127.0.0.1")
    port = silent.sockets[0].getsockname()[1]
    try:
        await broker.up()
        host, _, reachable = broker.address.rpartition(":")
        brokers = [("127.0.0.1", port), (host, int(reachable)), ("localhost", port)]
        checks = check_brokers(Check("billing", "kafka"), KafkaConnection.plain(broker.address), brokers)
        async with asyncio.timeout(LOGIN_SECONDS / 2):
            connects, unchecked = [finding async for finding in checks]
    finally:
        silent.close()
        broker.kill()
    assert (connects.status, connects.found) == (Status.OK, "connects")
    assert (unchecked.status, unchecked.remedy) == (Status.WARNING, "let the pods reach every broker")
    assert unchecked.found == f"not checked, because they cannot be reached: 127.0.0.1:{port}, localhost:{port}"


async def test_a_broker_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    broker = kafka(tmp_path)
    try:
        await broker.up()
        settings = Settings(environment="sandbox", kafka_bootstrap=broker.address)
        checks = check_kafka(Subject("billing", settings.model_copy(update={"environment": "production"})))
        assert (await anext(checks)).status is Status.OK
        assert (await anext(checks)).found.startswith("missing: ")
    finally:
        broker.kill()
    (rights,) = [finding async for finding in checks]
    assert (rights.check, rights.status) == ("kafka permissions", Status.FAILED)
    assert rights.found == "Kafka cannot be reached: KafkaConnectionError"
    assert rights.remedy == "let the pods reach every broker"
