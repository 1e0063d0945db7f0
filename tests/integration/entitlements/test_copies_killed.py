"""Copies of the entitlements while the processes that hold or publish them are killed again and again."""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from muster_contracts import read_headers, topics
from muster_contracts.codec import subject_of
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_entitlements.workers.snapshots import STEP_SEATS
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics
from tests.integration.entitlements.conftest import Entitlements, ProcessStarter
from tests.integration.entitlements.test_snapshots import compare
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS
from tests.support.topics import Reader

SEATS = 4 * STEP_SEATS


@asynccontextmanager
async def client_process(front: Entitlements) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a copy of the entitlements, which answers the checks on its standard input; killed at the end."""
    settings = front.service.runtime.settings
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.entitlements.following"),
        *(settings.kafka_bootstrap, settings.topic_prefix, front.service.clock.now().isoformat()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield client
    finally:
        client.kill()
        await client.wait()


async def answers(client: asyncio.subprocess.Process, subjects: Sequence[str]) -> list[list[Any]]:
    """Verdict and reason of each check, as the client gives them."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(subjects).encode() + b"\n")
    found: list[list[Any]] = json.loads(await asyncio.wait_for(client.stdout.readline(), 60))
    return found


async def test_a_client_and_a_rebuild_killed_again_and_again_hold_what_the_tables_have(
    front: Entitlements, start_process: ProcessStarter, chance: random.Random
) -> None:
    await front.enroll(cap=SEATS)
    await start_process("worker", "relay")
    people = [f"person.{number}@nasa.gov" for number in range(SEATS)]
    accepted = await front.send_file("\n".join(["email", *people]))
    for _ in range(3):
        async with client_process(front) as client:
            await answers(client, [])  # its copy is complete, as far as the topic goes
            await asyncio.sleep(chance.random() * 0.2)
    async with client_process(front) as client:
        await hold_what_the_tables_have(front, client, accepted, chance, people)


async def hold_what_the_tables_have(
    front: Entitlements,
    client: asyncio.subprocess.Process,
    accepted: httpx.Response,
    chance: random.Random,
    people: list[str],
) -> None:
    """The client holds what the tables have, even when its topic is lost, and recreated by a rebuild that is killed."""
    admin, settings = front.service.admin, front.service.runtime.settings
    assert (await front.finished(accepted))["assigned"] == SEATS
    revoked = chance.sample(people, SEATS // 10)
    assert (await front.import_file("\n".join(["email", *revoked]), "seat-revocations"))["changed"] == len(revoked)

    async def published() -> bool:
        return bool(await admin.fetchval("select not exists (select from outbox)"))

    async def agrees() -> bool:
        return await answers(client, subjects) == expected

    await eventually(published, timeout=60)
    rows = await admin.fetch("select subject_ref from seat order by random() limit 1000")
    subjects = [row["subject_ref"] for row in rows]
    body = {"pairs": [{"subject": subject, "feature": "deep-research"} for subject in subjects]}
    told = (await front.post("checks", body)).json()["answers"]
    expected = [[answer["verdict"], answer["reason"]] for answer in told]
    assert {verdict for verdict, _ in expected} == {"allowed", "refused"}
    await eventually(agrees, timeout=30)
    assert await latest(front) == await tables(front)

    # The topic is lost, and the rebuild is killed: before the first step of seats, then before the third.
    kafka = kafka_at(settings.kafka_bootstrap)
    await delete_topics(kafka, [settings.topic_prefix + AgencyAccess.topic])
    await create_topics(kafka, settings.topic_prefix, [topics()[AgencyAccess.topic]], partitions=PARTITIONS)
    for nth in (1, 3):
        assert await rebuild(front, "--die-before", "last sequence", "--nth", str(nth)) < 0
    await eventually(published, timeout=60)
    left = len((await tables(front))[1]) - len((await latest(front))[1])
    assert 0 < left < SEATS - len(revoked)
    assert await rebuild(front) == 0
    await eventually(published, timeout=60)
    assert await latest(front) == await tables(front)
    assert await compare(front) == []
    await eventually(agrees, timeout=60)  # it has noticed that the topic is a different one, and started over


async def rebuild(front: Entitlements, *breaking: str) -> int:
    """Rebuild the topic by the command; its exit status."""
    settings = front.service.runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(["-m", "tests.faults.launcher", *breaking] if breaking else []),
        *("-m", "muster_entitlements", "rebuild", "snapshot", "--swap", "--reason", "ticket 4712"),
        env=os.environ
        | {
            "MUSTER_ENVIRONMENT": "sandbox",
            "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
            "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    return await asyncio.wait_for(process.wait(), 120)


Held = tuple[dict[str, int], dict[str, tuple[int, str]]]


async def latest(front: Entitlements) -> Held:
    """The latest records of the topic: each agency's cap, and the generation and state of each person's seat."""
    agencies: dict[str, int] = {}
    people: dict[str, tuple[int, str]] = {}
    settings = front.service.runtime.settings
    async with Reader(kafka_at(settings.kafka_bootstrap), settings.topic_prefix, [AgencyAccess.topic]) as reader:
        records = await reader.records()
    for record in records:
        match read_headers(record.headers).type:
            case AgencyAccess.event_type:
                agency = AgencyAccess.model_validate_json(record.value or b"")
                agencies[agency.agency_id] = agency.cap
            case SubjectAccess.event_type:
                access = SubjectAccess.model_validate_json(record.value or b"")
                people[access.subject_ref] = (access.generation, str(access.seat))
            case SubjectAccessErased.event_type:
                people.pop(subject_of(record.key), None)
    return agencies, people


async def tables(front: Entitlements) -> Held:
    """The same, from the tables."""
    pools = await front.service.admin.fetch("select agency_id, cap from pool")
    seats = await front.service.admin.fetch("select subject_ref, generation, state from seat where state <> 'revoked'")
    return (
        {row["agency_id"]: row["cap"] for row in pools},
        {row["subject_ref"]: (row["generation"], row["state"]) for row in seats},
    )
