"""Sealing the audit: every row once, whatever else is running, and without delaying a command."""

import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from muster_contracts.audit import NO_SEAL, sealed_sha256
from muster_contracts.entitlements import EntitlementsAuditSealed
from muster_runtime.database.transactions import RETRYABLE, Database
from muster_runtime.observability import audit
from muster_runtime.observability.seals import SEAL_ROWS
from muster_runtime.process.roles import Role
from muster_runtime.scheduling.sealer import PATIENCE_SECONDS, Sealer
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build_sealing
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = datetime(2025, 8, 6, tzinfo=UTC)
AGENCIES = ("NASA", "DOE", "EPA", "*")


@pytest.fixture
async def sealing(run_service: ServiceRunner) -> RunningService:
    """The probe with a relay, and without the sealer of a running service."""
    return await run_service(build_sealing, Settings, roles=frozenset({Role.RELAY}))


def sealer(probe: RunningService) -> Sealer:
    own = probe.runtime
    return Sealer(own.database, own.wakeup, own.clock, "probe", EntitlementsAuditSealed, timedelta(minutes=1))


async def record(database: Database, agency_id: str, count: int = 1) -> None:
    async with database.write(agency_id, context=CONTEXT) as uow:
        for number in range(count):
            audit.record(uow, command="Test", agency_id=agency_id, subject=str(number), after={"number": number})


async def whole(probe: RunningService) -> int:
    """How many seals there are. Fails unless they cover every row once, are gapless and chained, and are published."""
    seals = await probe.admin.fetch("select * from audit_seal order by agency_id, number")
    before: dict[str, asyncpg.Record] = {}
    for seal in seals:
        last = before.get(seal["agency_id"])
        assert seal["number"] == (last["number"] + 1 if last else 1)
        assert seal["previous_sha256"] == (last["sha256"] if last else NO_SEAL)
        rows = await probe.admin.fetch(
            "select * from audit where agency_id = $1 and id > $2 and id <= $3 order by id",
            seal["agency_id"],
            last["last_id"] if last else 0,
            seal["last_id"],
        )
        assert (len(rows), rows[0]["id"]) == (seal["count"], seal["first_id"])
        facts = {name: seal[name] for name in ("agency_id", "number", "previous_sha256", "sealed_at")}
        assert sealed_sha256(map(dict, rows), service="probe", **facts) == seal["sha256"]
        before[seal["agency_id"]] = seal
    assert sum(seal["count"] for seal in seals) == await probe.admin.fetchval("select count(*) from audit")
    published = await probe.published(EntitlementsAuditSealed)
    events = {event.envelope.id: event.data.model_dump() for event in published}.values()  # a relay may repeat one
    assert sorted(events, key=lambda event: (event["agency_id"], event["number"])) == [dict(seal) for seal in seals]
    return len(seals)


async def test_every_row_is_sealed_once_beside_commands_and_other_sealers_that_are_cut_off(
    sealing: RunningService,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    api = await Database(sealing.access.api_dsn, "probe", sealing.clock, size=4).open()
    commands = 0
    enough = asyncio.Event()

    async def command() -> None:
        nonlocal commands
        while not enough.is_set():
            await record(api, chance.choice(AGENCIES), chance.randint(1, 3))
            commands += 1

    async def seal_and_be_cut_off() -> None:
        while not enough.is_set():
            with suppress(*RETRYABLE):
                async with asyncio.timeout(chance.uniform(0.001, 0.05)):
                    await sealer(sealing).seal_all()

    async def kill() -> bool:
        await asyncio.sleep(chance.uniform(0.05, 0.2))
        await sealing.admin.execute(
            """
            select pg_terminate_backend(pid)
            from pg_stat_activity
            where usename = 'probe_worker' and datname = current_database() and query ~ 'audit'
            """
        )
        return commands > 150 and await sealing.admin.fetchval("select count(*) from audit_seal") > 10

    async def kill_until_enough() -> None:
        try:
            await eventually(kill)
        finally:
            enough.set()

    await asyncio.gather(
        *(command() for _ in range(4)), *(seal_and_be_cut_off() for _ in range(2)), kill_until_enough()
    )
    await api.close()

    async def sealed() -> bool:
        await sealer(sealing).seal_all()
        return await sealing.admin.fetchval("select count(*) from outbox") == 0 and await whole(sealing) > 0

    await eventually(sealed)


async def test_a_held_lock_delays_no_other_agency_and_many_rows_make_several_seals(sealing: RunningService) -> None:
    database = sealing.runtime.database
    for agency_id in AGENCIES:
        await record(database, agency_id, SEAL_ROWS + 1 if agency_id == "EPA" else 2)
    began = time.monotonic()
    async with database.write("NASA", "DOE", context=CONTEXT):
        assert sorted(await sealer(sealing).seal_all()) == ["DOE", "NASA"]
    assert time.monotonic() - began < 2 * PATIENCE_SECONDS + 2
    assert await sealer(sealing).seal_all() == []
    counts = await sealing.admin.fetch("select agency_id, count from audit_seal order by agency_id, number")
    assert [tuple(row) for row in counts] == [("*", 2), ("DOE", 2), ("EPA", SEAL_ROWS), ("EPA", 1), ("NASA", 2)]
    # Without new rows nothing is sealed, and sealing itself is not audited.
    assert await sealer(sealing).seal_all() == []

    async def published() -> bool:
        return await sealing.admin.fetchval("select count(*) from outbox") == 0 and await whole(sealing) == 5

    await eventually(published)


async def test_a_running_scheduler_seals_each_minute_and_the_gauge_says_what_is_not_sealed(
    run_service: ServiceRunner,
) -> None:
    probe = await run_service(build_sealing, Settings)
    probe.clock.move(START)
    await eventually(lambda: is_due(probe, None))  # the clock went back
    await record(probe.runtime.database, "NASA")
    probe.clock.move(START + timedelta(seconds=59))
    assert await gauge(probe) == 59
    # A sandbox's clock does not stop to have rows sealed.
    assert await is_due(probe, None)
    probe.clock.move(START + timedelta(minutes=7))
    await eventually(lambda: is_sealed(probe, 1))
    await eventually(lambda: is_due(probe, None))
    assert await gauge(probe) == 0
    # A held lock delays it, and the clock waits where it is.
    await record(probe.runtime.database, "DOE")
    async with probe.runtime.database.write("DOE", context=CONTEXT):
        probe.clock.move(START + timedelta(minutes=14))
        assert await is_due(probe, START + timedelta(minutes=8))
        assert await gauge(probe) == 7 * 60
    await eventually(lambda: is_sealed(probe, 2))


async def is_due(probe: RunningService, since: datetime | None) -> bool:
    state = (await probe.client.get("/sandbox/state")).json()
    return bool(state["next_due"] == (None if since is None else since.isoformat().replace("+00:00", "Z")))


async def gauge(probe: RunningService) -> float | None:
    assert (await probe.client.get("/health/ready")).status_code in {200, 503}
    return REGISTRY.get_sample_value("muster_audit_unsealed_seconds", {"service": "probe"})


async def is_sealed(probe: RunningService, seals: int) -> bool:
    return bool(await probe.admin.fetchval("select count(*) from audit_seal") == seals)


@pytest.mark.parametrize("role", ["api", "worker"])
async def test_no_role_can_change_what_is_recorded_or_sealed(sealing: RunningService, role: str) -> None:
    await record(sealing.runtime.database, "NASA", 2)
    await sealer(sealing).seal_all()
    dsn = sealing.access.api_dsn if role == "api" else sealing.access.worker_dsn
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "probe"})
    statements = [
        *(f"update {table} set agency_id = 'DOE'" for table in ("audit", "audit_seal")),
        *(f"delete from {table}" for table in ("audit", "audit_seal")),
        *(f"truncate {table}" for table in ("audit", "audit_seal")),
        "alter table audit disable row level security",
        "alter function drop_sealed_audit(interval, integer) security invoker",
        # A row with the highest id would be sealed last, and no later row ever would be.
        """
        insert into audit (id, recorded_at, agency_id, actor, command, correlation_id)
        overriding system value values (9223372036854775807, now(), 'NASA', 'x', 'X', 'cor_1')
        """,
    ]
    if role == "api":
        statements += [
            "select drop_sealed_audit(interval '10 years', 1)",
            "insert into audit_seal select agency_id, 2, 1, 1, 1, sha256, sha256, sealed_at from audit_seal",
        ]
    try:
        async with connection.transaction():
            await connection.execute("select lock_agencies(array['NASA'], now())")
            for statement in statements:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.execute(statement)
        if role == "worker":
            with pytest.raises(asyncpg.InvalidParameterValueError, match="365 days at least"):
                await connection.fetchval("select drop_sealed_audit(interval '364 days', 1000)")
            # A seal that ends beyond the last row would leave every later row unsealed.
            async with connection.transaction():
                await connection.execute("select lock_agencies(array['NASA'], now())")
                with pytest.raises(asyncpg.ForeignKeyViolationError, match="no audit row of NASA has the ID 1000"):
                    await connection.execute(
                        "insert into audit_seal select agency_id, 2, 3, 1000, 1, sha256, sha256, now() from audit_seal"
                    )
            # Rows younger than a year stay, whatever a seal that the caller makes says about them.
            forged = "$1, $1, 1, repeat('0', 64), repeat('0', 64), '2000-01-01'"
            for number, row_id in ((2, 1), (3, 2), (4, 2)):
                insert = f"insert into audit_seal select 'NASA', {number}, {forged}"
                async with connection.transaction():
                    await connection.execute("select lock_agencies(array['NASA'], now())")
                    await connection.execute(insert, row_id)
            assert await connection.fetchval("select drop_sealed_audit(interval '365 days', 1000)") == 0
            # A table of the caller's own does not take the place of the owner's.
            await sealing.admin.execute("grant temporary on database " + await name_of(sealing) + " to probe_worker")
            await connection.execute("create temp table audit_seal as table audit_seal")
            await connection.execute("update audit_seal set sealed_at = '2000-01-01', number = 2")
            assert await connection.fetchval("select drop_sealed_audit(interval '365 days', 1000)") == 0
    finally:
        await connection.close()
    assert await sealing.admin.fetchval("select count(*) from audit") == 2


UNREADABLE = ("infinity", "-infinity", "20000-01-01", "0044-03-15 BC", "9999-12-31 23:59:59-12")


@pytest.mark.parametrize("role", ["api", "worker"])
async def test_no_role_can_record_a_date_that_no_program_can_read(sealing: RunningService, role: str) -> None:
    dsn = sealing.access.api_dsn if role == "api" else sealing.access.worker_dsn
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "probe"})
    try:
        for at in UNREADABLE:
            with pytest.raises(asyncpg.CheckViolationError, match="audit_recorded_at_readable"):
                await record_at(connection, at)
    finally:
        await connection.close()


@pytest.mark.parametrize("at", UNREADABLE)
async def test_a_date_that_no_program_can_read_ends_no_other_agencys_sealing(
    run_service: ServiceRunner, at: str
) -> None:
    probe = await run_service(build_sealing, Settings)
    probe.clock.move(START)
    await eventually(lambda: is_due(probe, None))  # the clock went back
    await probe.admin.execute("alter table audit drop constraint audit_recorded_at_readable")
    await record_at(probe.admin, at)  # as if from before the schema refused it
    for sealed in (1, 2):
        await record(probe.runtime.database, "DOE")
        probe.clock.move(START + timedelta(minutes=sealed))

        async def is_sealed(expected: int = sealed) -> bool:
            seals = await probe.admin.fetchval("select count(*) from audit_seal where agency_id = 'DOE'")
            return bool(seals == expected)

        await eventually(is_sealed)
        await eventually(lambda: is_due(probe, None))
    ready = await probe.client.get("/health/ready")
    assert ready.status_code == 200, ready.text
    if await probe.admin.fetchval("select count(*) from audit_seal where agency_id = 'NASA'") == 0:
        assert "audit rows cannot be sealed (agencies: 1): see audit-finding.md" in ready.json()["warnings"]
        assert (await gauge(probe) or 0) > 300  # for the alert
    listed = await probe.client.get("/v1/audit")
    assert listed.json()["items"][0]["recorded_at"] is None


async def record_at(connection: "asyncpg.Connection[Any]", at: str) -> None:
    async with connection.transaction():
        await connection.execute("select lock_agencies(array['NASA'], now())")
        await connection.execute(
            """
            insert into audit (recorded_at, agency_id, actor, command, correlation_id)
            values ($1::text::timestamptz, 'NASA', 'x', 'X', 'cor_1')
            """,
            at,
        )


async def name_of(probe: RunningService) -> str:
    name: str = await probe.admin.fetchval("select current_database()")
    return name
