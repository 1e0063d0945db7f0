"""The processing of files, chunk by chunk: what a dry run may promise, and what is left behind and deleted."""

import pytest
from structlog.testing import capture_logs

from muster_entitlements.bootstrap import build
from muster_entitlements.domain.people import Directory
from muster_entitlements.handlers import operations
from muster_entitlements.handlers.operations import process_next_chunk
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of, sums
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


async def test_a_dry_run_of_a_pool_that_became_smaller_meanwhile_gives_no_seat(run_service: ServiceRunner) -> None:
    service = await run_service(build, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER}))
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=30_000)
    accepted = await entitlements.send_file(file_of(20_000), dry_run=True)
    directory = Directory("a key of the test's own")

    async def process_chunk() -> None:
        async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
            await process_next_chunk(uow, "NASA", directory)

    await process_chunk()
    assigned = await service.admin.fetchval("select done from operation")
    assert (await entitlements.post("pool/resize", {"cap": assigned - 100})).status_code == 200
    while (await service.client.get(accepted.headers["location"])).json()["state"] == "running":
        await process_chunk()
    operation = (await service.client.get(accepted.headers["location"])).json()
    assert sums(operation) == (20_000, assigned, 0, 20_000 - assigned)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_file_of_an_earlier_enrollment_gives_out_no_seat_in_a_later_one(
    run_service: ServiceRunner, begun: bool
) -> None:
    service = await run_service(build, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER}))
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=30_000)
    accepted = await entitlements.send_file(file_of(20_000))
    directory = Directory("a key of the test's own")

    async def process_chunk() -> None:
        async with service.runtime.database.write("NASA", context=CONTEXT) as uow:
            await process_next_chunk(uow, "NASA", directory)

    if begun:
        await process_chunk()
    done = await service.admin.fetchval("select done from operation")
    await service.publish(entitlements.withdrawn())
    await entitlements.enroll(cap=30_000, enrollment_id="enr_2")
    while (await service.client.get(accepted.headers["location"])).json()["state"] == "running":
        await process_chunk()
    operation = (await service.client.get(accepted.headers["location"])).json()
    assert (operation["state"], operation["stop_reason"]) == ("stopped", "enrollment-over")
    assert sums(operation) == (done, done, 0, 0)
    assert (await entitlements.pool())["in_use"] == 0


async def test_files_wait_while_the_outbox_is_full(run_service: ServiceRunner) -> None:
    """As during a long outage of Kafka."""
    roles = frozenset({Role.API, Role.CONSUMER, Role.WORKER})  # nothing is published
    service = await run_service(build, EntitlementsSettings, roles=roles, outbox_rows=100)
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=5)
    await service.admin.execute(
        """
        insert into outbox (
            topic, agency_id, epoch, first_sequence, type, time, correlation_id, recorded_at, events, payloads
        )
        select 'muster.entitlements.seat', 'GSA', 1, number, 'a.type', now(), 'cor_1', now(), 1, '{}'
        from generate_series(1, 100) as s (number)
        """
    )
    await service.client.get("/health/ready")
    assert (await entitlements.send_file(file_of(5))).status_code == 429
    with capture_logs() as logs:
        await service.admin.execute(
            """
            with chunk as (
                insert into operation_chunk (agency_id, operation_id, number, first_line, content)
                values ('NASA', 'bat_1', 0, 2, $1)
            )
            insert into operation (
                agency_id, operation_id, enrollment_id, kind, state, dry_run, on_limit, directory, columns, actor,
                correlation_id, created_at, chunks, place
            )
            values (
                'NASA', 'bat_1', 'enr_1', 'import', 'running', false, 'fill', false, '{1, 0, null, null}', 'a', 'cor_2',
                now(), 1, 1
            )
            """,
            b"ada@nasa.gov\n",
        )
        await eventually(lambda: [entry for entry in logs if entry["event"] == "seat_files_wait"])
        assert (await entitlements.pool())["in_use"] == 0

    await service.admin.execute("delete from outbox")  # as a relay would
    await service.client.get("/health/ready")

    async def completed() -> bool:
        return bool(await service.admin.fetchval("select state = 'completed' from operation"))

    await eventually(completed)
    assert (await entitlements.pool())["in_use"] == 1


async def test_what_files_leave_behind_is_deleted_in_bounded_transactions(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "CLEARED_CHUNKS", 2)
    monkeypatch.setattr(operations, "CLEARED_SEATS", 1_000)
    admin = entitlements.service.admin
    await entitlements.enroll(cap=5)
    await admin.execute("create table deletion (transaction text, target text)")
    await admin.execute("grant all on deletion to public")
    await admin.execute(
        """
        create function note_deletion() returns trigger language plpgsql as $$
        begin
            insert into deletion values (pg_current_xact_id()::text, tg_table_name);
            return old;
        end $$
        """
    )
    for table in ("operation_chunk", "dry_run_seat"):
        await admin.execute(
            f"create trigger note before delete on {table} for each row execute function note_deletion()"
        )
    assert (await entitlements.post("pool/resize", {"cap": 5_000})).status_code == 200
    dry = await entitlements.import_file(file_of(20_000), dry_run=True)
    assert sums(dry) == (20_000, 5_000, 0, 15_000)
    stopped = await entitlements.import_file(file_of(60_000), on_limit="stop")
    assert stopped["state"] == "stopped"
    assert (await entitlements.send_file(file_of(60_000) + '\n"')).status_code == 422
    entitlements.service.clock.move(START.replace(month=10))

    async def cleared() -> bool:
        return bool(
            await admin.fetchval(
                "select not exists (select from operation_chunk) and not exists (select from dry_run_seat)"
            )
        )

    await eventually(cleared)
    rows = await admin.fetch("select target, count(*) from deletion group by target, transaction")
    for target, most in (("operation_chunk", 2), ("dry_run_seat", 1_000)):
        counts = [row["count"] for row in rows if row["target"] == target]
        assert len(counts) > 2
        # A transaction may take a step of both kinds: of the rows that are forgotten, and of what files left behind.
        assert most <= max(counts) <= 2 * most
