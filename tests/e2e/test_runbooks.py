"""Every command of every runbook is run, as it stands there.

Where the runbook changes something, the stack is in the state that it is for; those that only look are run on a
healthy stack (`test_looking`).
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from muster_contracts import Envelope, event_id, source_of, topics, write_headers
from muster_contracts.enrollment import AgencyEnrolled, AgencySuspended
from muster_enrollment.domain.rules import ISSUER, PRODUCT
from muster_local.demo.programme import ProgramClient
from muster_local.postgres import program
from muster_local.programs import SERVICES, migrations_of
from muster_local.provisioning import drop
from muster_local.scopes import SCOPES
from muster_local.stack import Stack
from muster_local.topics import connect, delete_topics
from muster_runtime.clock import SystemClock
from muster_runtime.dbmate import RUNTIME_MIGRATIONS
from tests.faults.probe.service import MIGRATIONS
from tests.integration.notify.receiver import Receiver, receiving
from tests.support.databases import _fingerprint
from tests.support.topics import Producer

Eventually = Callable[..., Awaitable[Any]]
RUNBOOKS = Path(__file__).parents[2] / "infra" / "runbooks"
TOPIC = AgencySuspended.topic
READERS = ("billing", "entitlements", "notify")

# Long enough for a machine that does much else at the same time.
PATIENCE = 90


class Operator:
    """Somebody in a folder with a stack in it, who follows runbooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = [Path(sys.executable).parent, program("pg_dump").parent]
        self.path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])

    @property
    def stack(self) -> Stack:
        """The stack as it runs now."""
        stack = Stack.running(self.folder / ".muster")
        assert stack is not None
        return stack

    def follow(self, runbook: str, part: str = "", **variables: str) -> str:
        """Run the commands of a runbook, or of the part under a heading, and answer what they printed."""
        text = (RUNBOOKS / runbook).read_text("utf-8")
        if part:
            (text,) = re.findall(rf"^## {part}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
        assert blocks, runbook
        return self.run("\n".join(blocks), **variables)

    def run(self, script: str, **variables: str) -> str:
        """Run a script as a shell does; it must succeed."""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**os.environ, "PATH": self.path, "COLUMNS": "400", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    async def sql(self, service: str, query: str, *arguments: Any) -> Any:
        """What a query finds in a service's schema."""
        connection = await asyncpg.connect(self.stack.admin_dsn, server_settings={"search_path": service})
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def operator(postgres: str, kafka_bootstrap: str) -> Iterator[Operator]:
    """One stack for all of them: its start is dear, and each runbook leaves it as it should be."""
    operator = Operator(Path(tempfile.mkdtemp(prefix="muster-runbooks-")))
    operator.run("muster up")
    database = operator.stack.admin_dsn.rpartition("/")[2].partition("?")[0]
    prefix = operator.stack.topic_prefix
    yield operator
    operator.run("muster down")
    asyncio.run(drop(postgres, database))
    asyncio.run(delete_topics(kafka_bootstrap, [prefix + name for name in topics()]))
    shutil.rmtree(operator.folder)


@pytest.fixture
async def producer(operator: Operator) -> AsyncIterator[Producer]:
    """Puts records on the stack's topics, as a broken enrollment service would."""
    async with Producer(operator.stack.bootstrap, operator.stack.topic_prefix) as producer:
        yield producer


def broken(agency_id: str, sequence: int) -> tuple[Envelope, AgencySuspended]:
    """An event of an agency that nobody knows."""
    now = SystemClock().now()
    event = AgencySuspended(agency_id=agency_id, enrollment_id="enr_none", reason="test", suspended_at=now)
    envelope = Envelope(
        id=event_id(TOPIC, agency_id, 1, sequence),
        source=source_of(TOPIC),
        type=event.event_type,
        time=now,
        agency_id=agency_id,
        epoch=1,
        sequence=sequence,
        correlation_id="cor_test",
    )
    return envelope, event


async def parked(operator: Operator, service: str, agency_id: str) -> int:
    count: int = await operator.sql(
        service, "select coalesce(sum(records), 0) from parked_stream where agency_id = $1", agency_id
    )
    return count


async def poison(operator: Operator, producer: Producer, agency_id: str, eventually: Eventually) -> None:
    """Park the stream of an agency in every reader by a record that none of them can read."""
    envelope = broken(agency_id, 1)[0]._replace(type=AgencyEnrolled.event_type)
    await producer.put_raw(TOPIC, key=agency_id.encode(), value=b"not JSON", headers=write_headers(envelope))
    for service in READERS:
        await eventually(lambda service=service: parked(operator, service, agency_id), timeout=PATIENCE)


async def enroll(operator: Operator, agency_id: str) -> None:
    """Let an agency join, so that billing has a term to lose."""
    stack = operator.stack
    urls = {service: stack.service_url(service) for service in SERVICES}
    person = {"name": "Ada Administrator", "email": f"ada@{agency_id.lower()}.gov"}
    async with ProgramClient(urls, stack.token(*SCOPES)) as program_office:
        columns = ["id", "name", "parent", "treasury_code", "domains", "headcount", "branch"]
        row = [agency_id, agency_id, "", "", f"{agency_id.lower()}.gov", "100", "executive"]
        register = "\n".join("\t".join(cells) for cells in (columns, row)) + "\n"
        await program_office.upload("enrollment", "register", register.encode(), "text/tab-separated-values")
        path = f"agencies/{agency_id}"
        starts_at = SystemClock().now().isoformat()
        await program_office.post(
            "enrollment", f"{path}/enrollments", {"seats": 5, "starts_at": starts_at, "contact": person}
        )
        await program_office.post(
            "enrollment",
            f"{path}/authorizations",
            {
                "number": f"ATU-{agency_id}",
                "issuer": ISSUER,
                "product": PRODUCT,
                "valid_from": "2025-01-01T00:00:00Z",
                "valid_until": "2099-01-01T00:00:00Z",
            },
        )
        await program_office.post(
            "enrollment",
            f"{path}/data-use-acceptances",
            {"terms_version": "2025-08", "signer": person, "evidence_sha256": "0" * 64},
        )


async def has_a_term(operator: Operator, agency_id: str) -> bool:
    return bool(await operator.sql("billing", "select count(*) from term where agency_id = $1", agency_id))


async def assign_seats(operator: Operator, agency_id: str, count: int) -> None:
    """Give out seats."""
    stack = operator.stack
    async with httpx.AsyncClient(
        base_url=stack.service_url("entitlements"),
        headers={"authorization": f"Bearer {stack.token('entitlements:write')}"},
        trust_env=False,
    ) as client:
        for number in range(count):
            person = {"email": f"person.{number}@{agency_id.lower()}.gov"}
            (await client.post(f"/v1/agencies/{agency_id}/seats", json=person)).raise_for_status()


async def test_rebuild(operator: Operator, eventually: Eventually) -> None:
    await enroll(operator, "NASA")
    pool = "select count(*) from pool where agency_id = 'NASA'"
    await eventually(lambda: operator.sql("entitlements", pool), timeout=PATIENCE)
    await assign_seats(operator, "NASA", 3)
    await operator.sql("entitlements", "update pool set in_use = in_use + 1 where agency_id = 'NASA'")
    # An administrator, a signer, and who has a seat.
    all_known = "select count(*) = 5 from directory where agency_id = 'NASA'"
    await eventually(lambda: operator.sql("notify", all_known), timeout=PATIENCE)
    await operator.sql("notify", "delete from directory where agency_id = 'NASA'")
    said = operator.follow("rebuild.md")
    assert "4 seats; 3 in the topics" in said
    assert "the seats differ" in said
    assert "the directories differ" in said
    assert said.count("The rebuilt projection is in place.") == 2
    assert said.count("The projection is correct.") == 2
    assert await operator.sql("entitlements", "select in_use from pool where agency_id = 'NASA'") == 3
    assert await operator.sql("notify", all_known)
    for service, ticket in (("entitlements", "4713"), ("notify", "4712")):
        audited = await operator.sql(service, "select reason from audit where command = 'RebuildProjection'")
        assert f"ticket {ticket}" in audited


async def test_restore(operator: Operator, eventually: Eventually, tmp_path: Path) -> None:
    variables = {"SERVICE": "billing", "BACKUP": str(tmp_path / "billing.dump")}
    await enroll(operator, "EPA")
    await eventually(lambda: has_a_term(operator, "EPA"), timeout=PATIENCE)
    operator.follow("restore.md", part="Back up", **variables)
    await enroll(operator, "DOE")
    await eventually(lambda: has_a_term(operator, "DOE"), timeout=PATIENCE)
    lost = await operator.sql("billing", "select id from term where agency_id = 'DOE'")

    said = operator.follow("restore.md", part="Restore", **variables)
    assert "streams continue in epoch 2" in said
    audited = "select string_agg(command || ': ' || reason, '; ' order by id) from audit where agency_id = '*'"
    reason = "restored from the backup of Monday 04:00"
    assert await operator.sql("billing", audited) == f"RaiseEpoch: {reason}"
    await eventually(lambda: has_a_term(operator, "DOE"), timeout=PATIENCE)
    assert await operator.sql("billing", "select id from term where agency_id = 'DOE'") != lost
    # Its readers take the new epoch: the term that was decided again is known everywhere.
    heard = "select epoch from applied where topic = 'muster.billing.term' and agency_id = 'DOE'"
    await eventually(lambda: operator.sql("entitlements", f"{heard} and epoch = 2"), timeout=PATIENCE)
    assert "All services agree." in operator.follow("restore.md", part="Afterwards", **variables)


async def test_a_record_of_another_program_is_passed(operator: Operator) -> None:
    where = {"TOPIC": "muster.billing.term", "AGENCY": "EPA", "PARTITION": "0", "OFFSET": "1000000"}
    said = operator.follow("restore.md", part=r"Is the record the service's own\?", SERVICE="billing", **where)
    assert "billing skips muster.billing.term[0], offset 1000000" in said


async def test_reconcile(operator: Operator) -> None:
    assert "All services agree." in operator.follow("reconcile.md")
    await operator.sql("billing", "update term set state = 'cancelled' where agency_id = 'EPA'")
    await operator.sql("entitlements", "update term set ended = true where agency_id = 'NASA'")
    await operator.sql("entitlements", "update pool set in_use = in_use + 1 where agency_id = 'NASA'")
    away = "insert into directory values ('NASA', 'sub_away', 'person', null, 'who.was.erased@nasa.gov')"
    await operator.sql("notify", away)
    with pytest.raises(AssertionError) as found:
        operator.follow("reconcile.md")
    for difference in (
        r"an enrollment without a term.*EPA",
        r"a term that entitlements sees differently.*NASA",
        r"a projection that is off.*NASA.*muster rebuild entitlements.seats-in-use",
        r"a person who was erased and is still there.*NASA.*sub_away.*muster rebuild notify.directory",
    ):
        assert re.search(difference, str(found.value))
    assert "who.was.erased" not in str(found.value)
    await operator.sql("notify", "delete from directory where subject_ref = 'sub_away'")
    await operator.sql("billing", "update term set state = 'running' where agency_id = 'EPA'")
    await operator.sql("entitlements", "update term set ended = false where agency_id = 'NASA'")
    await operator.sql("entitlements", "update pool set in_use = in_use - 1 where agency_id = 'NASA'")
    operator.follow("reconcile.md")


async def test_upgrade(operator: Operator) -> None:
    said = operator.follow("upgrade.md", SERVICE="billing")
    newest = max(
        file.name.partition("_")[0] for file in (*migrations_of("billing").iterdir(), *RUNTIME_MIGRATIONS.iterdir())
    )
    assert newest in said
    assert "--transactional-id" in said
    assert said.count("Nothing is parked.") == 2
    assert "All services agree." in said


async def test_parked_stream(operator: Operator, producer: Producer, eventually: Eventually) -> None:
    await poison(operator, producer, "HHS", eventually)
    partition, offset = await first_parked(operator, "HHS")
    where = {"PARTITION": partition, "OFFSET": offset}
    said = operator.follow("parked-stream.md", TOPIC=TOPIC, AGENCY="HHS", SERVICE="notify", **where)
    assert "the value does not fit" in said
    assert f"discarded {partition}@{offset}; no record waits" in said
    assert "Nothing is parked." in said
    for service in ("billing", "entitlements"):
        discard = f"muster parked discard {TOPIC} HHS --service {service} --record {partition}@{offset}"
        operator.run(f"{discard} --reason 'not JSON'")
    audited = await operator.sql("notify", "select reason from audit where command = 'DiscardParkedRecord'")
    assert "ticket 4711" in audited


async def first_parked(operator: Operator, agency_id: str) -> tuple[str, str]:
    """Partition and offset of the first record of an agency that waits, as `muster parked show` has them."""
    query = "select kafka_partition || '@' || kafka_offset from parked_event where agency_id = $1"
    partition, _, offset = (await operator.sql("notify", query, agency_id)).partition("@")
    return partition, offset


async def test_deadline_parked(operator: Operator, eventually: Eventually) -> None:
    """A deadline of a kind that the service has no handler for."""
    await operator.sql("billing", "insert into deadline values ('forgotten', 'NIH', 'inv_1', now() - interval '1 day')")
    is_parked = "select reason from deadline where kind = 'forgotten'"
    await eventually(lambda: operator.sql("billing", is_parked), timeout=PATIENCE)
    said = operator.follow("deadline-parked.md", SERVICE="billing", KIND="forgotten", AGENCY="NIH", SUBJECT="inv_1")
    assert "still parked: LookupError: billing has no handler for deadlines of the kind 'forgotten'" in said
    assert "discarded forgotten of inv_1" in said
    assert "No deadline is parked." in said
    audited = await operator.sql("billing", "select reason from audit where command = 'DiscardParkedDeadline'")
    assert "ticket 4714" in audited


async def test_gap(operator: Operator, producer: Producer, eventually: Eventually) -> None:
    await producer.put(*broken("USDA", 3))
    for service in READERS:
        await eventually(lambda service=service: parked(operator, service, "USDA"), timeout=PATIENCE)
    said = operator.follow("gap.md", TOPIC=TOPIC, AGENCY="USDA", SERVICE="notify")
    assert "sequence 1 was expected and 3 came" in said
    assert "a parked stream" in said
    assert "sequence 3 waits; - is applied" in said
    assert "accepted up to 2" in said
    for service in ("billing", "entitlements"):
        operator.run(f"muster streams gap accept {TOPIC} USDA --service {service} --reason 'gone'")


async def test_partition_paused(operator: Operator, producer: Producer, eventually: Eventually) -> None:
    await producer.put(*broken("DOL", 2))
    for service in READERS:
        await eventually(lambda service=service: parked(operator, service, "DOL"), timeout=PATIENCE)
        accept_gap_alone(operator, service, "DOL", 2)
    for service in ("billing", "entitlements"):
        operator.run(f"muster parked replay {TOPIC} DOL --service {service}")
    said = operator.follow("partition-paused.md", TOPIC=TOPIC, AGENCY="DOL", SERVICE="notify")
    assert "notify: muster.enrollment.agency of DOL: replayed" in said


async def test_snapshot_held(operator: Operator) -> None:
    holding = await asyncpg.connect(
        operator.stack.admin_dsn, server_settings={"application_name": "a forgotten report"}
    )
    await holding.execute("begin isolation level repeatable read")
    await holding.fetchval("select count(*) from billing.outbox")
    said = operator.follow("snapshot-held.md", SERVICE="billing", PID=str(holding.get_server_pid()))
    assert "a forgotten report" in said
    assert "pg_terminate_backend" in said
    assert "muster_oldest_snapshot_seconds" in said
    with pytest.raises(asyncpg.PostgresConnectionError):
        await holding.fetchval("select 1")


async def test_webhook_disabled(operator: Operator, eventually: Eventually) -> None:
    async with receiving(Receiver(answer=lambda _: 410)) as receiver:
        token = operator.stack.token("notify:read", "notify:write")
        async with httpx.AsyncClient(
            base_url=operator.stack.service_url("notify"),
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
        ) as client:
            wanted = {"url": receiver.url, "event_types": [AgencyEnrolled.event_type]}
            webhook = (await client.post("/v1/agencies/VA/webhooks", json=wanted)).raise_for_status().json()
            await enroll(operator, "VA")

            async def disabled() -> Any:
                (found,) = (await client.get("/v1/agencies/VA/webhooks")).json()["items"]
                return found if found["state"] == "disabled" else None

            found = await eventually(disabled, timeout=PATIENCE)
        assert "webhook endpoints are disabled: 1" in operator.run("muster status")
        receiver.answer = lambda _: 204
        receiver.requests.clear()
        said = operator.follow(
            "webhook-disabled.md", AGENCY="VA", WEBHOOK=webhook["webhook_id"], SINCE=found["disabled_at"]
        )
        assert webhook["webhook_id"] in said
        assert "webhook endpoints are disabled" not in said
        await eventually(lambda: receiver.requests, timeout=PATIENCE)
        assert receiver.requests[0].verified(webhook["secret"])["agency_id"] == "VA"


async def test_drill(operator: Operator, postgres: str, kafka_bootstrap: str, eventually: Eventually) -> None:
    before = await names_of_drills(postgres, kafka_bootstrap)
    said = operator.follow("drill.md", FAULT="03")
    assert "03 overlapping transactions committed in reverse miss nothing" in said
    assert "1 passed" in said
    new = await names_of_drills(postgres, kafka_bootstrap) - before

    async def gone() -> bool:
        """Names that other tests gave meanwhile go as well."""
        left = new & await names_of_drills(postgres, kafka_bootstrap)
        assert left == set()
        return True

    await eventually(gone, timeout=PATIENCE)


async def names_of_drills(postgres: str, kafka_bootstrap: str) -> set[str]:
    """Databases and topics such as a drill makes."""
    connection = await asyncpg.connect(postgres)
    databases = await connection.fetch(
        "select datname from pg_database where datname like 'test\\_probe\\_%' or datname = $1",
        f"template_probe_{_fingerprint(MIGRATIONS)}",
    )
    await connection.close()
    async with connect(kafka_bootstrap) as admin:
        theirs = [name for name in await admin.list_topics() if name.startswith("faults-")]
    return {*theirs, *(row["datname"] for row in databases)}


def accept_gap_alone(operator: Operator, service: str, agency_id: str, waiting: int) -> None:
    """Mend the cause for which a stream stands, and leave it to be replayed."""
    httpx.post(
        f"{operator.stack.service_url(service)}/v1/streams/{TOPIC}/{agency_id}/gap",
        json={"waiting": waiting, "reason": "gone"},
        headers={"authorization": f"Bearer {operator.stack.token(f'{service}:operate')}"},
    ).raise_for_status()


@pytest.mark.parametrize(
    "runbook",
    [
        "process-gone.md",
        "not-ready.md",
        "topic-repartitioned.md",
        "unreadable-record.md",
        "consumer-stands.md",
        "consumer-behind.md",
        "outbox-stuck.md",
        "deadlines-late.md",
        "purge-overdue.md",
        "issuer-silent.md",
        "requests-refused.md",
        "requests-fail.md",
        "standby-gone.md",
    ],
)
async def test_looking(operator: Operator, runbook: str) -> None:
    """The commands do what they say; the trouble that they are for is not there."""
    operator.follow(runbook, TOPIC=TOPIC, AGENCY="NASA", SERVICE="billing", PARTITION="0", OFFSET="0")
