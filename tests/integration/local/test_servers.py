"""What the stack prepares on its servers: topics, roles and schemas; and its mail server."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from muster_contracts import topics
from muster_local.child import Child, Program
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import drop, password_of, provision
from muster_operator.topics import create_topics, delete_topics
from tests.support.eventually import eventually


async def test_topics_are_created_as_described_and_only_once(kafka_bootstrap: str, topic_prefix: str) -> None:
    described = {topic_prefix + topic.name: topic for topic in topics().values()}
    assert set(await create_topics(kafka_at(kafka_bootstrap), topic_prefix, topics().values())) == described.keys()
    assert await create_topics(kafka_at(kafka_bootstrap), topic_prefix, topics().values(), partitions=1) == []

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        for topic in await admin.describe_topics(list(described)):
            assert len(topic["partitions"]) == described[topic["topic"]].partitions
        answer: Any
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in described])
        for _, _, _, name, entries in answer.resources:
            configured = {entry[0]: entry[1] for entry in entries}
            assert configured["cleanup.policy"] == described[name].cleanup_policy
            assert configured["retention.ms"] == str(described[name].retention_ms)
    finally:
        await admin.close()
        await delete_topics(kafka_at(kafka_bootstrap), described)


async def test_several_may_provision_at_once(postgres: str, topic_prefix: str) -> None:
    database = topic_prefix.rstrip(".")
    try:
        accesses = await asyncio.gather(*(provision(postgres, database, "echo", password_of(postgres)) for _ in "1234"))
        assert len(set(accesses)) == 1
        for dsn in (accesses[0].owner_dsn, accesses[0].api_dsn, accesses[0].worker_dsn):
            connection = await asyncpg.connect(dsn)
            assert await connection.fetchval("show search_path") == "echo"
            assert not await connection.fetchval("select rolsuper or rolbypassrls from pg_roles where rolname = user")
            await connection.close()
    finally:
        await drop(postgres, database)


async def test_the_mail_server_keeps_every_message_whole(tmp_path: Path, unused_tcp_port: int) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    command = [sys.executable, "-m", "muster_local.mail", str(unused_tcp_port), str(folder)]
    server = Child(Program("mail", command, f"127.0.0.1:{unused_tcp_port}"), tmp_path / "log")
    await server.start()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "muster@muster.example", "ada@nasa.gov", "Seats für alle"
    message.set_content("Drei Plätze sind frei.\n.\nEin Punkt allein endet keine Nachricht.")

    async def sent() -> bool:
        try:
            await aiosmtplib.send(message, hostname="127.0.0.1", port=unused_tcp_port)
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    try:
        await eventually(sent)
    finally:
        await server.stop()
    (kept,) = folder.glob("*.eml")
    read = message_from_bytes(kept.read_bytes())
    assert read["X-Envelope-To"] == "ada@nasa.gov"
    content = read.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert content.decode().splitlines() == message.get_content().splitlines()
    assert await server.wait() == "exited with status 0"


@pytest.mark.parametrize(
    "statement", ["create table x (a int)", "create temporary table x (a int)", "create role x", "create database x"]
)
async def test_an_api_role_creates_nothing(
    statement: str, service_database: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    (tmp_path / "20300101000000_nothing.sql").write_text("-- migrate:up\nselect 1;\n-- migrate:down\n", "utf-8")
    access = await service_database("echo", tmp_path)
    connection = await asyncpg.connect(access.api_dsn)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
