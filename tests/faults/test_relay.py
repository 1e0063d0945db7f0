"""The relay dies, freezes, runs twice, or is misled: events repeat at most, and effects come once."""

import asyncio
import signal
from contextlib import AsyncExitStack

import asyncpg
import psutil
import pytest

from muster_contracts.entitlements import PersonErased, PersonRecorded, SeatAssigned
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.probe.service import assign_seats
from tests.faults.recorder import Command, Ending
from tests.faults.traffic import AGENCIES
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually

pytestmark = pytest.mark.drill


async def test_01_a_relay_killed_between_acknowledgment_and_delete_causes_no_second_effect(
    field: Field, findings: Findings
) -> None:
    await field.serve()
    field.start("consumer")
    dying = field.start("relay", breaking=["--die-before", "delete", "--nth", "2"])
    await field.traffic(60)
    await field.until_dead(dying)
    findings.fault_is_over()
    field.start("relay")
    await field.at_rest()
    repeated = await field.repetitions()
    findings.recovered(f"{repeated} events repeated on the topic")
    assert repeated > 0
    assert await field.differences() == []


async def test_02_stopped_past_its_lease_and_woken_beside_a_second_one_order_is_kept(
    field: Field, findings: Findings
) -> None:
    await field.serve()
    field.start("consumer")
    first = field.start("relay", breaking=["--stop-before", "send", "--nth", "2"])
    await field.traffic(40)
    await eventually(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED, timeout=60)
    findings.fault_is_over()
    second = field.start("relay")
    await field.at_rest()
    holder = await field.admin.fetchval("select holder from lease where duty = 'relay'")
    findings.recovered(f"{holder} held the lease, {first.program.environment['MUSTER_INSTANCE']} was idle")

    repeated = await field.repetitions()
    traffic = asyncio.create_task(field.traffic(40))
    first.send(signal.SIGCONT)
    await traffic

    async def has_sent_again() -> bool:
        return await field.repetitions() > repeated

    await eventually(has_sent_again)  # the first one has sent the batch that it held
    await field.at_rest()
    assert first.runs
    assert second.runs
    assert await field.differences() == []


async def test_03_overlapping_transactions_committed_in_reverse_miss_nothing(field: Field, findings: Findings) -> None:
    await field.serve("relay", "consumer")
    database = await Database(field.access.api_dsn, "probe", SystemClock()).open()
    for turn in range(5):
        async with AsyncExitStack() as last_opened_closes_first:
            for agency_id in AGENCIES:
                seat_ids = [f"{turn}-{agency_id}-{part}" for part in range(field.dice.randint(1, 9))]
                rolled_back = agency_id == AGENCIES[turn % len(AGENCIES)]
                if rolled_back:
                    last_opened_closes_first.enter_context(pytest.raises(RolledBack))
                uow = await last_opened_closes_first.enter_async_context(database.write(agency_id, context=CONTEXT))
                await assign_seats(uow, agency_id, seat_ids)
                await uow.flush()
                if rolled_back:
                    last_opened_closes_first.callback(_roll_back)
                ending: Ending = "refused" if rolled_back else "answered"
                field.recorder.record(Command(f"key-{turn}-{agency_id}", agency_id, seat_ids, ending))
            # Those with the higher ids are relayed before those with the lower ones have committed.
            await field.traffic(2, agencies=["USAID"])
            await eventually(lambda: field.is_applied("USAID"))
        await field.at_rest()
    await database.close()
    findings.fault_is_over()
    await field.at_rest()
    findings.recovered("runs with low ids committed last, and were relayed last")
    assert await field.differences() == []


# Tables that reads write to: a read changes nothing of the agency, and so takes no lock.
BESIDE_READS = {"personal_read"}


class RolledBack(Exception):
    """Rolls a transaction back."""


def _roll_back() -> None:
    raise RolledBack


async def test_04_a_write_without_the_agencys_lock_is_refused_in_every_table(field: Field) -> None:
    await field.serve("relay", "consumer")
    await field.traffic(8)
    await field.at_rest()
    tables = await field.admin.fetch(
        """
        select c.relname as name
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attname = 'agency_id'
        where c.relnamespace = 'probe'::regnamespace and c.relkind = 'r'
        """
    )
    assert len(tables) > 10
    due = {"subject": "window", "due_at": "2099-01-01T00:00:00Z"}
    assert (await field.client.post("/v1/agencies/NASA/expiries", json=due)).status_code == 201
    updatable = {
        field.access.api_dsn: ("stream", "tally", "deadline"),
        field.access.worker_dsn: ("stream", "applied", "deadline"),
    }
    for dsn, names in updatable.items():
        connection = await asyncpg.connect(dsn)
        for table in tables:
            if table["name"] in BESIDE_READS:
                continue
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"insert into {table['name']} (agency_id) values ('NASA')")
        await connection.execute("select set_config('muster.agency', '*', false)")  # as an operator reads
        for name in names:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await connection.execute(f"update {name} set agency_id = agency_id")
        if dsn == field.access.api_dsn:
            assert await connection.execute("delete from deadline") == "DELETE 0"  # it may delete none of what it sees
        await connection.close()
    assert await field.admin.fetchval("select count(*) from deadline") == 1

    database = await Database(field.access.api_dsn, "probe", SystemClock()).open()
    with pytest.raises(RuntimeError, match="which is not locked"):
        async with database.write("NASA", context=CONTEXT) as uow:
            uow.publish(SeatAssigned(agency_id="DOE", seat_id="seat", subject_ref="sub_1"))
    await database.close()
    assert await field.differences() == []


async def test_10_an_out_of_order_sequence_makes_the_relay_replace_its_producer(
    field: Field, findings: Findings
) -> None:
    await field.serve()
    field.start("consumer")
    misled = field.start("relay", breaking=["--skip-sequence-before", "send", "--nth", "3"])
    await field.ready(misled)
    findings.fault_is_over()
    for _ in range(5):
        await field.traffic(10)
        await field.at_rest()
    failures = misled.logged("relay_failed")
    findings.recovered(f"the relay logged {'; '.join(failure['error'] for failure in failures)}")
    assert ["OutOfOrderSequenceNumber" in failure["error"] for failure in failures] == [True]
    assert misled.runs
    assert await field.differences() == []


async def test_30_a_woken_relay_does_not_undo_an_erasure(field: Field, findings: Findings) -> None:
    """On a compacted topic the last record of a key is what everyone who reads it later believes."""
    await field.serve()
    first = field.start("relay", breaking=["--stop-before", "send"])
    await field.ready(first)
    person = PersonRecorded(agency_id="NASA", subject_ref="sub_1", name="Ada Lovelace", email="ada@nasa.gov")
    await field.publish(person)
    await eventually(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED, timeout=60)

    field.start("relay")
    await field.until_drained()
    await field.publish(PersonErased(agency_id="NASA", subject_ref="sub_1"))
    await field.until_drained()
    assert await field.directory() == [person.model_dump_json(), None]

    findings.fault_is_over()
    first.send(signal.SIGCONT)

    async def has_tried() -> bool:
        return bool(first.logged("relay_failed")) or len(await field.directory()) > 2

    await eventually(has_tried, timeout=60)
    assert (await field.directory())[-1] is None
    findings.recovered(f"the resumed relay was refused: {first.logged('relay_failed')[0]['error']}")

    # It publishes the facts as before, and the compacted topic too once it leads again.
    await field.publish(PersonRecorded(agency_id="NASA", subject_ref="sub_2", name="Bob", email="bob@nasa.gov"))
    await field.traffic(5)
    await field.until_drained()
