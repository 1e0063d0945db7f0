"""Commits that Postgres does not confirm at once: whom they stop, and from when on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from muster_runtime.database import transactions
from muster_runtime.database.commits import CommitUnconfirmed
from muster_runtime.database.transactions import Database
from muster_runtime.http.agency_queue import AgencyQueue
from muster_runtime.http.command_gate import CommandGate
from muster_runtime.messaging.backlog import Backlog
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService

PATIENCE_SECONDS = 1.5


@pytest.fixture
async def api(idle_probe: RunningService, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """The database of commands, whose commits wait while someone else holds the advisory lock 1."""
    await idle_probe.admin.execute(
        """
        create function wait() returns trigger language plpgsql as $$
        begin
            perform pg_advisory_xact_lock_shared(1);
            return null;
        end $$;
        create constraint trigger wait after insert on effect deferrable initially deferred
        for each row execute function wait();
        """
    )
    monkeypatch.setattr(transactions, "COMMIT_SECONDS", PATIENCE_SECONDS)
    gate = CommandGate(AgencyQueue(250), Backlog(1_000_000))
    api = await Database(idle_probe.access.api_dsn, "probe", idle_probe.clock, size=3, gate=gate).open()
    yield api
    await api.close()


async def write(api: Database, agency_id: str) -> None:
    async with api.write(agency_id, context=CONTEXT) as uow:
        await uow.connection.execute(
            "insert into effect (agency_id, event_id, sequence, seat_id) values ($1, 'e', 1, 's')", agency_id
        )


async def touch(api: Database) -> None:
    async with api.write("DOE", context=CONTEXT):
        pass


async def test_a_canceled_commit_stops_others_only_once_it_has_waited_too_long(
    api: Database, idle_probe: RunningService
) -> None:
    await idle_probe.admin.execute("select pg_advisory_lock(1)")
    writing = asyncio.create_task(write(api, "NASA"))
    waits = "select count(*) from pg_locks where locktype = 'advisory' and objid = 1 and not granted"
    await eventually(lambda: idle_probe.admin.fetchval(waits), prompt=True)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await touch(api)

    async def is_refused() -> bool:
        try:
            await touch(api)
        except CommitUnconfirmed as refusal:
            return f"within {PATIENCE_SECONDS} s" in str(refusal)
        return False

    await eventually(is_refused)
    await idle_probe.admin.execute("select pg_advisory_unlock(1)")

    async def is_admitted() -> bool:
        return not await is_refused()

    await eventually(is_admitted)
    assert await idle_probe.admin.fetchval("select agency_id from effect") == "NASA"
