"""A standby of Postgres takes over, is gone, or comes back."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

import httpx

from muster_runtime.database.commits import STANDBY_GONE
from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.readiness import readiness_reason
from tests.faults.replica import Replicas, configure
from tests.faults.servers import Server
from tests.faults.traffic import AGENCIES
from tests.support.eventually import eventually

# When an expiry falls due in the sandbox's time.
DUE = datetime(2040, 1, 1, tzinfo=UTC)

# Within this time a request is answered, whatever its sender's time-out is.
ANSWER_SECONDS = 15

# Longer than a consumer that is behind may do nothing in this test.
WELL_PAST_THE_WATCHDOG = 12


async def test_36_a_synchronous_standby_that_is_promoted_lacks_nothing_and_the_services_follow(
    replicated_field: Field, replicas: Replicas, findings: Findings
) -> None:
    """What is left of the primary is an address that accepts connections and answers none."""
    field = replicated_field
    await replicas.wait_for_standby()
    consumer = field.start("consumer")
    await field.serve("relay")
    await field.ready(consumer)
    async with field.live_traffic():
        await eventually(lambda: len(field.recorder.commands()) > 40, timeout=60)
        replicas.lose_primary()
        answered = len(field.recorder.commands())
        await replicas.promote()
        findings.fault_is_over()
        await eventually(lambda: len(field.recorder.commands()) > answered + 40, timeout=60)
    field.access = replace(field.access, admin_dsn=_on(replicas.standby, field.access.admin_dsn))
    await field.reconnect()
    await field.at_rest()
    findings.recovered("40 commands were answered before the primary was lost, and 40 once the standby led")
    assert field.api.runs
    assert consumer.runs
    await field.ready(field.api, consumer)
    assert await field.differences() == []


async def test_37_a_synchronous_standby_that_is_gone_is_named_and_all_go_on_when_it_is_back(
    replicated_field: Field, replicas: Replicas, findings: Findings
) -> None:
    field = replicated_field
    await replicas.wait_for_standby()
    watched = {"MUSTER_CONSUMER_STUCK_SECONDS": "8"}
    others = [field.start(role, settings=watched) for role in ("relay", "consumer", "scheduler")]
    processes = [await field.serve(), *others]
    await field.ready(*processes)
    await field.move_clock(DUE - timedelta(hours=1), *processes)
    await field.client.post("/v1/agencies/EPA/expiries", json={"subject": "1", "due_at": DUE.isoformat()})
    await field.traffic(20)
    await field.at_rest()

    await asyncio.to_thread(replicas.standby.kill)
    await field.move_clock(DUE, *processes)
    keys = [f"while it is gone {number}" for number in range(8)]
    refused = await asyncio.gather(*(_ask(field, key) for key in keys))
    for reply in refused:
        assert (reply.status_code, "retry-after" in reply.headers) == (503, True), reply.text
        assert reply.elapsed.total_seconds() < ANSWER_SECONDS
    for process in processes:
        await eventually(lambda: readiness_reason(process, STANDBY_GONE), timeout=30)  # noqa: B023 - awaited within the turn
    assert (await _ask(field, keys[0])).elapsed.total_seconds() < 1
    await eventually(lambda: _commits_wait(field, WELL_PAST_THE_WATCHDOG), timeout=60)
    assert [process.exit_status for process in processes] == [None] * len(processes)

    # A process that stops leaves its commit to Postgres.
    assert await _commit_of_the_worker_waits(field)
    await asyncio.to_thread(processes.pop().stop)
    assert await _commit_of_the_worker_waits(field)

    # A waiting commit that is canceled has taken effect on the primary alone; a repeated request finds that.
    canceled = await field.admin.fetchval(
        "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and usename = 'probe_api'"
    )
    assert canceled
    await replicas.standby.up()
    findings.fault_is_over()
    await field.ready(*processes)
    repeated = [await field.assign_seats(_agency(key), key, key=key) for key in keys]
    assert {command.ending for command in repeated} == {"answered"}
    await field.traffic(20)
    await field.at_rest()
    assert await field.has_expired(1)
    findings.recovered(f"{WELL_PAST_THE_WATCHDOG} s without the standby; no process ended")
    assert await field.differences() == []


async def test_37_a_promoted_server_that_waits_for_a_standby_of_its_own_is_named_too(
    replicated_field: Field, replicas: Replicas, findings: Findings
) -> None:
    """Killed clients leave sessions that wait on, and hold the relay's lease; only the end of the wait ends them."""
    field = replicated_field
    await replicas.wait_for_standby()
    await field.serve("relay", "consumer")
    await field.traffic(20)
    await field.at_rest()
    await configure(replicas.standby, "synchronous_standby_names", "another")
    await asyncio.to_thread(replicas.primary.kill)
    await replicas.promote()
    await field.reconnect()
    assert (await _ask(field, "a")).status_code == 503
    await eventually(lambda: readiness_reason(field.api, STANDBY_GONE), timeout=30)
    field.api.kill()
    relay = field.start("relay", "consumer")
    await eventually(lambda: readiness_reason(relay, STANDBY_GONE), timeout=30)
    await configure(replicas.standby, "synchronous_standby_names", "")
    findings.fault_is_over()
    await field.serve()
    await field.ready(relay)
    await field.assign_seats(_agency("a"), "a", key="a")
    await field.at_rest()
    findings.recovered("synchronous_standby_names was emptied")
    assert await field.differences() == []


def _on(server: Server, dsn: str) -> str:
    """A database's address on one of the servers alone."""
    return urlunsplit(urlsplit(server.address)._replace(path=urlsplit(dsn).path))


def _agency(key: str) -> str:
    return AGENCIES[ord(key[-1]) % 2]


async def _ask(field: Field, key: str) -> httpx.Response:
    """Try once to assign the seat that has the key's name."""
    return await field.client.post(
        f"/v1/agencies/{_agency(key)}/seats", json={"seat_ids": [key]}, headers={"Idempotency-Key": key}
    )


async def _commit_of_the_worker_waits(field: Field) -> bool:
    waits = "select true from pg_stat_activity where wait_event = 'SyncRep' and usename = 'probe_worker'"
    return bool(await field.admin.fetchval(f"{waits} and query ilike 'commit%'"))


async def _commits_wait(field: Field, seconds: int) -> bool:
    waited = await field.admin.fetchval("select commit_wait_seconds()")
    assert waited > seconds, f"{waited:.0f} s"
    return True
