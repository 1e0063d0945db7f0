"""A process that is ahead of its schema: it waits for the migration, says so, and fails only if none is pending."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from structlog.testing import CapturingLogger

from muster_runtime.database.schema import MigrationsPending, SchemaTooNew
from muster_runtime.messaging import lane
from muster_runtime.process.roles import Role
from muster_runtime.scheduling import retention, scheduler
from muster_runtime.settings import Settings
from tests.integration.runtime.core.looks import not_ready, ready
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.http import sample
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner

Migration = Callable[["asyncpg.Connection[Any]", str], Awaitable[None]]
NOTES = "/v1/agencies/NASA/notes"


async def forget(admin: "asyncpg.Connection[Any]", version: str) -> None:
    """Make a migration count as pending, whatever it has changed."""
    assert await admin.fetchval("delete from schema_migrations where version = $1 returning true", version)


async def remember(admin: "asyncpg.Connection[Any]", version: str) -> None:
    await admin.execute("insert into schema_migrations (version) values ($1)", version)


@pytest.mark.parametrize(
    ("role", "module", "said", "table", "column"),
    [
        (Role.SCHEDULER, scheduler, "scheduler_retried", "deadline", "parked_at"),
        (Role.SCHEDULER, retention, "purge_retried", "idempotency", "recorded_at"),
        (Role.RELAY, lane, "relay_failed", "outbox", "events"),
    ],
)
async def test_a_duty_that_is_ahead_of_its_migration_waits_for_it(
    run_service: ServiceRunner,
    monkeypatch: pytest.MonkeyPatch,
    role: Role,
    module: ModuleType,
    said: str,
    table: str,
    column: str,
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "_log", log)
    first = await run_service(build, Settings, roles=frozenset())
    await forget(first.admin, version := "20250806000100")
    await first.admin.execute(f"alter table {table} rename column {column} to {column}_of_old")
    second = await run_service(build, Settings, beside=first, roles=frozenset({role}))

    def has_waited() -> bool:
        return any(call.args == (said,) and "MigrationsPending" in call.kwargs["error"] for call in log.calls)

    await eventually(has_waited)
    await eventually(lambda: not_ready(second, f"migrations are pending: {version}"))

    await first.admin.execute(f"alter table {table} rename column {column}_of_old to {column}")
    await remember(first.admin, version)
    await eventually(lambda: ready(second))
    assert not second.process.failed.done()


async def test_a_request_that_is_ahead_of_its_migration_may_be_sent_again(run_service: ServiceRunner) -> None:
    service = await run_service(sample.build, Settings, roles=frozenset({Role.API}))
    note = (await service.client.post(NOTES, json={"text": "a"})).headers["location"]
    await service.admin.execute("alter table note rename column text to text_of_old")

    async def answers() -> list[int]:
        command = await service.client.post(NOTES, json={"text": "b"}, headers={"Idempotency-Key": "k-1"})
        question = await service.client.get(note)
        for reply in (command, question):
            if reply.status_code == 503:
                assert reply.headers["retry-after"]
                assert reply.json()["type"] == "urn:muster:problem:migrations-pending"
                assert "of_old" not in reply.text
                assert '"text"' not in reply.text
        return [command.status_code, question.status_code]

    assert await answers() == [500, 500], "no migration is pending: it is a defect"
    await forget(service.admin, version := "20250806000900")
    assert await answers() == [503, 503]

    await service.admin.execute("alter table note rename column text_of_old to text")
    await remember(service.admin, version)
    assert await answers() == [201, 200]


@pytest.mark.parametrize(
    ("blaming", "statement", "error"),
    [
        (False, "select nothing_of_the_sort from outbox", asyncpg.UndefinedColumnError),
        (True, "select 1 / 0", asyncpg.DivisionByZeroError),
    ],
)
@pytest.mark.parametrize(
    ("begin", "end", "version", "excuse"),
    [(forget, remember, "20250806000100", MigrationsPending), (remember, forget, "20990102000001", SchemaTooNew)],
)
async def test_work_that_just_missed_the_end_of_a_migration_may_be_done_again(
    run_service: ServiceRunner,
    begin: Migration,
    end: Migration,
    version: str,
    excuse: type[Exception],
    blaming: bool,
    statement: str,
    error: type[Exception],
) -> None:
    service = await run_service(build, Settings, roles=frozenset())
    database = service.runtime.database

    async def fail(meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        async with database.blaming_schema() if blaming else nullcontext(), database.connection() as connection:
            try:
                await connection.fetch(statement)
            finally:
                if meanwhile:
                    await meanwhile()

    await begin(service.admin, version)
    with pytest.raises(excuse):
        await fail()
    with pytest.raises(excuse):
        await fail(lambda: end(service.admin, version))
    with pytest.raises(error):
        await fail()
