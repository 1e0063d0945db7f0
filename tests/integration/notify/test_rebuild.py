"""The directory, rebuilt from its topics: an event that a relay repeated late does not overwrite a newer one."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_local.servers import kafka_at
from muster_notify.workers import rebuild
from muster_operator.cli import app
from muster_operator.databases.provisioning import Access, password_of
from muster_runtime.messaging.producers import partition_of
from muster_runtime.operations.rebuild import opened
from tests.integration.notify.conftest import Notify, contact, enrolled
from tests.support.eventually import eventually
from tests.support.secured_kafka import SecuredKafka
from tests.support.services import PARTITIONS
from tests.support.topics import Producer

NOW = datetime(2025, 8, 6, tzinfo=UTC)


_ROWS = "select * from directory where role = 'person' order by subject_ref"
_INSERT = "insert into directory values ($1, 'sub_away', 'person', 'Away', 'away@nasa.gov')"


def person(name: str, subject_ref: str = "sub_1") -> PersonRecorded:
    return PersonRecorded(agency_id="NASA", subject_ref=subject_ref, name=name, email="ada@nasa.gov")


async def test_an_event_that_is_repeated_after_a_newer_one_does_not_count(notify: Notify) -> None:
    """An erased person stays erased; in a transaction the topic ends with a marker, which is not a record."""
    service = notify.service
    settings = service.runtime.settings
    async with Producer(
        kafka_at(settings.kafka_bootstrap), settings.topic_prefix, f"{settings.topic_prefix}tests"
    ) as producer:
        first, _ = await producer.publish([person("Ada"), person("Ada Lovelace")], NOW)
        await producer.put(first, person("Ada"))
        assert await rebuilt(notify) == ["Ada Lovelace"]
        await producer.publish([PersonErased(agency_id="NASA", subject_ref="sub_1")], NOW)
        await producer.put(first, person("Ada"))
        assert await rebuilt(notify) == []
        [back] = await producer.publish([person("Countess")], NOW)
        assert back.sequence == 4
        assert await rebuilt(notify) == ["Countess"]


async def test_a_swap_corrects_who_differs_step_by_step_and_waits_for_no_other_agency(
    notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "STEP", 2)
    people = [person(f"Person {number}", f"sub_{number}") for number in range(6)]
    producer = notify.service.producer
    (first,) = await producer.publish(people[:1], NOW)
    partition = partition_of(people[0].record_key.encode(), PARTITIONS)  # one for all: the relay's is the agency's
    for sequence, each in enumerate(people[1:], start=2):
        await producer.put(first._replace(sequence=sequence, id=f"{first.id}-{sequence}"), each, partition=partition)
    admin = notify.service.admin
    await eventually(lambda: admin.fetchval("select count(*) = 6 from directory"))
    kept = await admin.fetch(_ROWS)
    await admin.execute("delete from directory where subject_ref < 'sub_4'")
    await admin.execute("update directory set name = 'Nobody' where subject_ref = 'sub_4'")
    await admin.execute(_INSERT, "NASA")
    busy = await asyncpg.connect(notify.service.access.admin_dsn, server_settings={"search_path": "notify"})
    try:
        async with opened(notify.service.runtime.service, "directory") as projection, asyncio.timeout(20):
            other = busy.transaction()
            await other.start()
            await busy.execute(_INSERT, "EPA")  # as a consumer that has not committed
            await projection.replay()
            differences = await projection.swap("rows were changed by hand")
            await other.rollback()
    finally:
        await busy.close()
    assert await admin.fetch(_ROWS) == kept
    assert sorted(d.key for d in differences) == sorted(
        [f"NASA / sub_{number}" for number in (0, 1, 2, 3, 4, 4)] + ["NASA / sub_away"]
    )
    audited = await admin.fetch("select agency_id, after from audit where command = 'RebuildProjection' order by id")
    assert [(row["agency_id"], json.loads(row["after"])["differences"]) for row in audited] == [
        ("NASA", 2),
        ("NASA", 2),
        ("NASA", 3),
    ]


async def test_an_email_that_waits_for_a_contact_goes_out_once_the_swap_has_found_one(notify: Notify) -> None:
    """The clock does not move: what waits for its next attempt waits forever."""
    admin = notify.service.admin
    await notify.service.publish(contact())
    await eventually(lambda: admin.fetchval("select count(*) = 1 from directory"))
    await admin.execute("delete from directory")
    await notify.service.publish(enrolled())
    await notify.waits("the agency has no administrator")
    async with opened(notify.service.runtime.service, "directory") as projection:
        await projection.replay()
        await projection.swap("rows were changed by hand")
    await notify.until(state="delivered")


async def test_muster_runs_the_services_command_with_its_settings_and_passes_on_its_exit_status(
    notify: Notify, tmp_path: Path
) -> None:
    settings = notify.service.runtime.settings
    environment = {
        "PATH": os.environ["PATH"],
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_POSTGRES_WORKER_DSN": notify.service.access.worker_dsn,
        "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
    }

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    await notify.service.publish(person("Ada"))
    await eventually(lambda: notify.service.admin.fetchval("select count(*) = 1 from directory"))
    right = run("muster_operator", "rebuild", "notify.directory")
    said = "1 record on the topics; 0 could not be read\nThe projection is correct.\n"
    assert (right.returncode, right.stdout, right.stderr) == (0, said, "")

    await notify.service.admin.execute("delete from directory")
    wrong = run("muster_operator", "rebuild", "notify.directory", "--json")
    found = {
        "key": "NASA / sub_1",
        "found": "in the topics, but missing or different in the projection",
        "obstacle": "",
    }
    data = {"projection": "notify.directory", "records": 1, "unread": 0, "differences": [found], "swapped": 0}
    assert (wrong.returncode, json.loads(wrong.stdout), wrong.stderr) == (1, data, "")
    compared = run("muster_notify", "rebuild", "directory").stdout
    assert ("not corrected\n" in compared, compared.endswith("1 difference remains\n")) == (True, True), compared
    named = run("muster_operator", "rebuild", "notify.directory", "--swap", "--reason", "for ada@nasa.gov")
    assert (named.returncode, named.stderr.count("must not contain @")) == (2, 1), named.stderr
    swapped = run("muster_operator", "rebuild", "notify.directory", "--swap", "--reason", "ticket 4712", "--json")
    assert (swapped.returncode, json.loads(swapped.stdout)) == (0, {**data, "swapped": 1})
    assert await notify.service.admin.fetchval("select reason from audit order by id desc limit 1") == "ticket 4712"

    unknown = run("muster_operator", "rebuild", "notify.everything")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "muster: 'everything' is not a projection of notify; those are: directory\n"
    environment["MUSTER_POSTGRES_WORKER_DSN"] = "postgresql://notify_worker@127.0.0.1:1/muster"
    away = run("muster_operator", "rebuild", "notify.directory")
    assert away.returncode == 5
    assert away.stderr.startswith("muster: Postgres cannot be queried: ")
    assert len(away.stderr.splitlines()) == 1


async def test_a_server_that_refuses_a_rebuild_is_not_taken_for_one_that_does_not_answer(
    service_database: Callable[..., Awaitable[Access]], secured: SecuredKafka
) -> None:
    worker = (await service_database("notify")).worker_dsn
    settings = {
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_POSTGRES_WORKER_DSN": worker,
        "MUSTER_KAFKA_BOOTSTRAP": secured.bootstrap,
        "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MUSTER_KAFKA_USERNAME": "nobody",
        "MUSTER_KAFKA_PASSWORD": secrets.token_hex(),
        "MUSTER_KAFKA_CA_FILE": str(secured.authority.certificate),
    }
    stranger = worker.replace(password_of(worker), "wrong")
    for change, status, said in (
        ({}, 4, "Kafka refuses the user nobody: Authentication failed"),
        ({"MUSTER_KAFKA_CA_FILE": "/nowhere.pem"}, 2, "the certificate files of Kafka cannot be used: "),
        ({"MUSTER_POSTGRES_WORKER_DSN": stranger}, 4, "Postgres refused: password authentication failed for user "),
    ):
        result = CliRunner().invoke(app, ["rebuild", "notify.directory"], env={**settings, **change})
        assert (result.exit_code, result.stderr.startswith(f"muster: {said}")) == (status, True), result.output


async def rebuilt(notify: Notify) -> list[str]:
    """The names in the rebuilt directory, which must agree with the one that was maintained all along."""
    await notify.settle()
    async with opened(notify.service.runtime.service, "directory") as projection:
        await projection.replay()
        assert await projection.compare() == []
        rows = await notify.service.admin.fetch("select name from directory")
        return [row["name"] for row in rows]
