"""The fixtures that all other tests build on."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from muster_contracts.billing import InvoiceVoided
from muster_contracts.enrollment import AgencySuspended
from muster_operator.databases.provisioning import Access
from muster_runtime.database.schema import Schema
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.messaging.events import Received
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _void(uow: UnitOfWork, events: Sequence[Received[AgencySuspended]]) -> None:
    for event in events:
        uow.publish(
            InvoiceVoided(
                agency_id=event.data.agency_id,
                invoice_id="inv_1",
                term_id="trm_1",
                reason=event.data.reason,
                voided_at=uow.now,
            ),
            causation_id=event.envelope.id,
        )


def echo(folder: Path) -> Callable[[Settings], Service]:
    """A minimal service, which answers each AgencySuspended with an InvoiceVoided."""
    (folder / "20300101000000_nothing.sql").write_text("-- migrate:up\n-- migrate:down\n")
    return lambda settings: Service(
        schema=Schema("echo", folder),
        settings=settings,
        produces=[InvoiceVoided.topic],
        subscriptions={AgencySuspended: _void},
    )


def suspended(agency_id: str) -> AgencySuspended:
    return AgencySuspended(agency_id=agency_id, enrollment_id="enr_1", reason="atu_lapsed", suspended_at=NOW)


async def test_a_whole_service_runs_on_real_servers(run_service: ServiceRunner, tmp_path: Path) -> None:
    service = await run_service(echo(tmp_path), Settings)
    service.clock.move(NOW)

    envelopes = await service.publish(suspended("NASA"), suspended("NASA"), suspended("GSA"))

    async def answers() -> list[Received[InvoiceVoided]]:
        found = await service.published(InvoiceVoided)
        assert len(found) == 3
        return found

    found = await eventually(answers)
    assert [e.sequence for e in envelopes] == [1, 2, 1]
    assert {e.envelope.causation_id for e in found} == {e.id for e in envelopes}
    assert all(e.data.voided_at == NOW for e in found)
    assert (await service.client.get("/health/ready")).status_code == 200
    assert (await service.client.get("/sandbox/state")).json()["now"] == "2026-01-01T00:00:00Z"
    assert await service.admin.fetchval("select sum(last_sequence) from applied") == 3


async def test_a_second_process_shares_the_work(run_service: ServiceRunner, tmp_path: Path) -> None:
    first = await run_service(echo(tmp_path), Settings)
    second = await run_service(echo(tmp_path), Settings, beside=first)

    await second.publish(suspended("NASA"))

    async def answered() -> bool:
        return len(await first.published(InvoiceVoided)) == 1

    await eventually(answered)
    assert first.access == second.access
    assert first.runtime.settings.instance != second.runtime.settings.instance


async def test_roles_see_no_database_and_no_schema_but_their_own(
    service_database: Callable[..., Awaitable[Access]], tmp_path: Path
) -> None:
    (tmp_path / "20300101000000_nothing.sql").write_text("-- migrate:up\nselect 1;\n-- migrate:down\n", "utf-8")
    ours, theirs = await service_database("echo", tmp_path), await service_database("other", tmp_path)
    foreign = theirs.api_dsn.rpartition("/")[2]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(ours.api_dsn.rpartition("/")[0] + "/" + foreign)
    for dsn in (ours.api_dsn, ours.worker_dsn):
        connection = await asyncpg.connect(dsn)
        for ddl in ("create table t (a int)", "create table public.t (a int)", "create schema s", "drop table outbox"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(ddl)
        await connection.close()


async def test_a_changed_migration_makes_a_new_template(
    service_database: Callable[..., Awaitable[Access]], tmp_path: Path
) -> None:
    (tmp_path / "20300101000000_a.sql").write_text("-- migrate:up\ncreate table a (x int);\n-- migrate:down\n")
    await service_database("echo", tmp_path)
    (tmp_path / "20300101000000_a.sql").write_text("-- migrate:up\ncreate table b (x int);\n-- migrate:down\n")
    access = await service_database("echo", tmp_path)
    connection = await asyncpg.connect(access.owner_dsn)
    assert await connection.fetchval("select to_regclass('b') is not null and to_regclass('a') is null")
    await connection.close()
