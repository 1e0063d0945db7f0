"""Every command of every runbook is run verbatim.

A runbook that changes something runs in the state that it is for; one that only looks, on a healthy stack.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from muster_contracts import SERVICES
from muster_contracts.enrollment import AgencyEnrolled
from muster_local.programs import migrations_of
from muster_local.servers import kafka_at
from muster_runtime.database.schema import RUNTIME_MIGRATIONS
from tests.e2e import paths
from tests.e2e.troubles import (
    LOOKING,
    PATIENCE,
    READERS,
    TOPIC,
    RestoreDrill,
    accept_gap_alone,
    broken,
    first_parked,
    has_a_term,
    names_of_drills,
    parked_everywhere,
    poison,
)
from tests.integration.notify.receiver import Receiver, receiving
from tests.support.eventually import eventually
from tests.support.operator import Operator, assign_seats, enroll
from tests.support.topics import Producer

# One worker runs them all, so that only one stack is started.
pytestmark = pytest.mark.shares_stack


@pytest.fixture
async def producer(operator: Operator) -> AsyncIterator[Producer]:
    """Writes records to the stack's topics like a broken enrollment service."""
    async with Producer(kafka_at(operator.stack.bootstrap), operator.stack.topic_prefix) as producer:
        yield producer


async def test_rebuild(operator: Operator) -> None:
    await enroll(operator, "NASA")
    pool = "select count(*) from pool where agency_id = 'NASA'"
    await eventually(lambda: operator.sql("entitlements", pool), timeout=PATIENCE)
    await assign_seats(operator, "NASA", range(3))
    await operator.sql("entitlements", "update pool set in_use = in_use + 1 where agency_id = 'NASA'")
    # An administrator, a signer, and those with a seat.
    all_known = "select count(*) = 5 from directory where agency_id = 'NASA'"
    await eventually(lambda: operator.sql("notify", all_known), timeout=PATIENCE)
    await operator.sql("notify", "delete from directory where agency_id = 'NASA'")
    said = operator.follow("rebuild.md")
    assert "4 seats; 3 in the topics" in said
    assert "the seats differ" in said
    assert "the directories differ" in said
    assert said.count("The rebuilt projection is in place.") == 2
    assert said.count("The projection is correct.") == 2 + 3  # the snapshots were never wrong
    assert await operator.sql("entitlements", "select in_use from pool where agency_id = 'NASA'") == 3
    assert await operator.sql("notify", all_known)
    for service, ticket in (("entitlements", "4713"), ("notify", "4712")):
        audited = await operator.sql(service, "select reason from audit where command = 'RebuildProjection'")
        assert f"ticket {ticket}" in audited


async def test_restore(operator: Operator, tmp_path: Path) -> None:
    variables = {"SERVICE": "billing", "BACKUP": str(tmp_path / "billing.dump")}
    await enroll(operator, "EPA")
    await eventually(lambda: has_a_term(operator, "EPA"), timeout=PATIENCE)
    operator.follow("restore.md", part="Back up", **variables)
    await enroll(operator, "DOE")
    await eventually(lambda: has_a_term(operator, "DOE"), timeout=PATIENCE)
    lost = await operator.sql("billing", "select id from term where agency_id = 'DOE'")

    drill = RestoreDrill()
    said = drill.restore(operator, **variables)
    assert re.search(r"\b(1 stream continues|(?!1 )\d+ streams continue) in epoch 2", said), said
    audited = "select string_agg(command || ': ' || reason, '; ' order by id) from audit where agency_id = '*'"
    assert await operator.sql("billing", audited) == "RaiseEpoch: restored from the backup of Monday 04:00"
    await eventually(lambda: has_a_term(operator, "DOE"), timeout=PATIENCE)
    assert await operator.sql("billing", "select id from term where agency_id = 'DOE'") != lost
    # Its readers accept the new epoch: the new term is known everywhere.
    heard = "select epoch from applied where topic = 'muster.billing.term' and agency_id = 'DOE'"
    await eventually(lambda: operator.sql("entitlements", f"{heard} and epoch = 2"), timeout=PATIENCE)
    drill.end()
    assert "billing: all deadlines are held since" in operator.run("muster deadlines list")
    assert "deadlines are held since" in operator.run("muster status")
    said = operator.follow("restore.md", part="Afterwards", **variables)
    assert "billing: its deadlines are released; they were held since" in said
    assert said.count("All services agree.") == 2
    assert "billing: its deadlines were not held" in operator.run("muster deadlines release billing --reason again")
    assert "are held" not in operator.run("muster deadlines list")


async def test_positions_that_went_back_are_read_again(operator: Operator) -> None:
    """Somebody has edited a database: the effects and positions of a stream are gone, but the offsets are not."""
    known = "select count(*) from directory where agency_id = 'NASA' and role = 'person'"
    before = await operator.sql("notify", known)
    await operator.sql("notify", "delete from directory where agency_id = 'NASA' and role = 'person'")
    await operator.sql(
        "notify", "delete from applied where agency_id = 'NASA' and topic = 'muster.entitlements.directory'"
    )
    with pytest.raises(AssertionError, match=r"NASA .* notify .* events that were read and are not applied"):
        operator.run("muster streams check --wait 0")
    said = operator.follow("failover.md", part="Read again", SERVICE="notify")
    assert re.search(r"^complete: \d+ streams", said, flags=re.MULTILINE)
    assert await operator.sql("notify", known) == before > 0


async def test_a_record_of_another_program_is_passed(operator: Operator) -> None:
    where = {"TOPIC": "muster.billing.term", "AGENCY": "EPA", "PARTITION": "0", "OFFSET": "1000000"}
    said = operator.follow("restore.md", part=r"Is the record the service's own\?", SERVICE="billing", **where)
    assert "billing will skip muster.billing.term[0]@1000000 if" in said


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
        r"a projection that has drifted.*NASA.*muster rebuild entitlements.seats-in-use",
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
    for part in (newest, "--transactional-id", "smtp"):  # a line of preflight's, none of which has failed
        assert part in said
    assert re.search(r"^notify +\d+\.\d\d s *$", said, flags=re.MULTILINE)  # the self-test's
    assert said.count("Nothing is parked.") == 2
    assert "All services agree." in said


async def test_rollback(operator: Operator) -> None:
    said = operator.follow("rollback.md", VERSION="0.1.0")
    assert len(re.findall(r" yes *$", said, flags=re.MULTILINE)) == len(SERVICES)
    with pytest.raises(AssertionError, match=r"--to 0\.0\.9: must be one of 0\.1\.0"):
        operator.run("muster rollback-check --to 0.0.9")


async def test_parked_stream(operator: Operator, producer: Producer) -> None:
    await poison(operator, producer, "HHS")
    partition, offset = await first_parked(operator, "HHS")
    where = {"PARTITION": partition, "OFFSET": offset}
    said = operator.follow("parked-stream.md", TOPIC=TOPIC, AGENCY="HHS", SERVICE="notify", **where)
    assert "the value does not fit" in said
    assert f"discarded {partition}@{offset}; none is left" in said
    assert "Nothing is parked." in said
    for service in ("billing", "entitlements"):
        discard = f"muster parked discard {TOPIC} HHS --service {service} --record {partition}@{offset}"
        operator.run(f"{discard} --reason 'not JSON'")
    audited = await operator.sql("notify", "select reason from audit where command = 'DiscardParkedRecord'")
    assert "ticket 4711" in audited


async def test_deadline_parked(operator: Operator) -> None:
    """A deadline of a kind for which the service has no handler."""
    await operator.sql("billing", "insert into deadline values ('forgotten', 'NIH', 'inv_1', now() - interval '1 day')")
    is_parked = "select reason from deadline where kind = 'forgotten'"
    await eventually(lambda: operator.sql("billing", is_parked), timeout=PATIENCE)
    said = operator.follow("deadline-parked.md", SERVICE="billing", KIND="forgotten", AGENCY="NIH", SUBJECT="inv_1")
    assert "still parked: LookupError: billing has no handler for deadlines of the kind 'forgotten'" in said
    assert "discarded forgotten of inv_1" in said
    assert "No deadline is parked." in said
    audited = await operator.sql("billing", "select reason from audit where command = 'DiscardParkedDeadline'")
    assert "ticket 4714" in audited


async def test_gap(operator: Operator, producer: Producer) -> None:
    await producer.put(*broken("USDA", 3))
    await parked_everywhere(operator, "USDA")
    said = operator.follow("gap.md", TOPIC=TOPIC, AGENCY="USDA", SERVICE="notify")
    assert "sequence 1 was expected, but 3 arrived" in said
    assert "a parked stream" in said
    assert "sequence 3 waits; - is applied" in said
    assert "accepted up to 2" in said
    for service in ("billing", "entitlements"):
        operator.run(f"muster streams gap accept {TOPIC} USDA --service {service} --reason 'gone'")


async def test_partition_paused(operator: Operator, producer: Producer) -> None:
    await producer.put(*broken("DOL", 2))
    await parked_everywhere(operator, "DOL")
    for service in READERS:
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


async def test_webhook_disabled(operator: Operator) -> None:
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


async def test_a_path_is_shown_from_its_command_to_its_delivery(operator: Operator) -> None:
    async with receiving(Receiver()) as receiver:
        await paths.join(operator, receiver)
        await paths.show_a_delivery(operator, receiver)
        await paths.show_where_it_waits(operator, receiver)


async def test_drill(operator: Operator, postgres: str, kafka_bootstrap: str) -> None:
    before = await names_of_drills(postgres, kafka_bootstrap)
    said = operator.follow("drill.md", FAULT="03")
    assert "03 overlapping transactions committed in reverse miss nothing" in said
    assert "1 passed" in said
    new = await names_of_drills(postgres, kafka_bootstrap) - before

    async def gone() -> bool:
        """Names that other tests created in the meantime disappear as well."""
        left = new & await names_of_drills(postgres, kafka_bootstrap)
        assert left == set()
        return True

    await eventually(gone, timeout=PATIENCE)


@pytest.mark.parametrize("runbook", LOOKING)
async def test_looking(operator: Operator, runbook: str) -> None:
    """The commands work, although the trouble that they are for is absent."""
    operator.follow(runbook, TOPIC=TOPIC, AGENCY="NASA", SERVICE="billing", PARTITION="0", OFFSET="0")
