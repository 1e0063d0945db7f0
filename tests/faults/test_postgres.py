"""Postgres restarts, ends sessions, is full, or loses an answer: what was committed takes effect once."""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import drop
from tests.faults import servers
from tests.faults.disk import SmallDisk
from tests.faults.field import Field, Where
from tests.faults.findings import Findings
from tests.faults.probe.service import SCHEMA
from tests.faults.proxy import PostgresProxy
from tests.faults.readiness import readiness_reason
from tests.faults.servers import Server
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.services import TokenIssuer

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.drill
async def test_05_an_old_transaction_elsewhere_in_the_cluster_does_not_stall_the_relay(
    field: Field, findings: Findings
) -> None:
    await field.serve("relay", "consumer")
    old = await asyncpg.connect(field.postgres_dsn)
    async with old.transaction():
        await old.fetchval("select pg_current_xact_id()")
        findings.fault_is_over()
        await field.traffic(60)
        await field.at_rest()
        findings.recovered("60 commands and all their effects while it was held")
    await old.close()
    assert await field.differences() == []


async def test_11_restarted_at_once_in_a_consumers_transaction_the_work_is_redone(
    field: Field, findings: Findings, postgres_server: Server
) -> None:
    await field.serve("relay")
    consumer = field.start("consumer")
    await field.ready(consumer)
    await field.traffic(20)
    await field.trouble("NASA", "slow", seconds=3)
    await field.assign_seats("NASA", "slow")
    await eventually(field.handler_sleeps, timeout=30)
    postgres_server.send(signal.SIGQUIT)  # an immediate shutdown: like a crash, for all but the shared memory
    await eventually(lambda: not postgres_server.runs)
    await postgres_server.up()
    findings.fault_is_over()
    await field.reconnect()
    assert "slow" not in await field.effects("NASA")
    await field.traffic(20)
    await field.at_rest()
    retries = consumer.logged("apply_retried")
    findings.recovered(f"retries of the consumer's batch: {len(retries)}")
    assert retries
    assert consumer.runs
    assert await field.differences() == []


@pytest.mark.drill
async def test_12_sessions_ended_at_random_leak_neither_locks_nor_sessions(field: Field, findings: Findings) -> None:
    await field.serve("relay")
    consumer = field.start("consumer")
    await field.ready(consumer)
    reaper = await field.connect()
    ended = 0
    async with field.live_traffic():
        for _ in range(60):
            await asyncio.sleep(field.dice.random() / 3)
            victims = await reaper.fetch(
                """
                select pid
                from pg_stat_activity
                where datname = current_database() and usename in ('probe_api', 'probe_worker')
                order by pid
                """
            )
            if victims:
                await reaper.execute("select pg_terminate_backend($1)", field.dice.choice(victims)["pid"])
                ended += 1
    await reaper.close()
    findings.fault_is_over()
    await field.at_rest()
    findings.recovered(f"{ended} sessions ended")
    assert ended > 0
    assert await field.differences() == []
    await eventually(lambda: _nothing_leaked(field))


async def _nothing_leaked(field: Field) -> bool:
    locks = await field.admin.fetchval(
        """
        select count(*)
        from pg_locks as l join pg_database as d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory'
        """
    )
    sessions = await field.admin.fetch(
        """
        select state, query
        from pg_stat_activity
        where datname = current_database() and usename in ('probe_api', 'probe_worker')
        """
    )
    assert locks == 0
    assert [tuple(session) for session in sessions if session["state"] != "idle"] == []
    # Two processes, each with a pool per role, of at most ten sessions, and the listener's session.
    assert len(sessions) <= 32
    return True


@pytest.mark.drill
async def test_13_when_the_answer_to_commit_is_lost_the_retry_changes_nothing(field: Field, findings: Findings) -> None:
    async with PostgresProxy(field.postgres_dsn) as api_proxy, PostgresProxy(field.postgres_dsn) as consumer_proxy:
        await field.serve("relay", where=_by_way_of(api_proxy, field))
        consumer = field.start("consumer", where=_by_way_of(consumer_proxy, field))
        await field.ready(consumer)
        await field.traffic(5)
        for proxy in (api_proxy, consumer_proxy):
            proxy.lose_replies_to_commit(6)
        await field.traffic(60)
        findings.fault_is_over()
        await field.at_rest()
        findings.recovered(f"{api_proxy.lost} answers lost to the API, {consumer_proxy.lost} to the consumer")
        assert (api_proxy.lost, consumer_proxy.lost) == (6, 6)
        assert {command.ending for command in field.recorder.commands()} == {"answered"}
        assert await field.differences() == []


def _by_way_of(proxy: PostgresProxy, field: Field) -> Where:
    access = replace(
        field.access,
        api_dsn=proxy.address_of(field.access.api_dsn),
        worker_dsn=proxy.address_of(field.access.worker_dsn),
    )
    return Where(access, field.bootstrap)


@pytest.mark.drill
async def test_24_after_a_restore_and_a_raised_epoch_no_new_event_is_mistaken_for_a_duplicate(
    databases: Databases, field: Field, findings: Findings
) -> None:
    """The consumer has a database of its own, which was not restored: it knows more than the producer."""
    consumers = await databases.make("probe", SCHEMA.migrations)
    consumer = field.start("consumer", where=Where(consumers, field.bootstrap))
    producer = await field.serve()
    relay = field.start("relay")
    await field.ready(consumer)
    await field.traffic(20)
    await field.until_drained()
    relay.stop()
    await field.assign_seats("NASA", "waits in the backup's outbox")
    producer.stop()

    backup = await field.back_up()
    try:
        producer = await field.serve("relay")
        await field.traffic(20)
        await field.until_drained()
        producer.stop()
        await field.restore(backup)
    finally:
        await drop(field.postgres_dsn, backup)
    findings.fault_is_over()
    published = len(await field.log())
    held = field.start("relay")
    await eventually(lambda: readiness_reason(held, "it was restored; raise its epoch"), timeout=60)
    assert await field.has_backlog()
    assert len(await field.log()) == published
    held.stop()
    producer = await field.serve()
    raised = await field.client.post("/v1/epoch", json={"reason": "restored from the last backup"})
    assert raised.json()["epoch"] == 2, raised.text
    producer.stop()

    before = len(field.recorder.commands())
    await field.serve("relay")
    await field.traffic(20)
    await field.until_drained()
    given_out = [seat_id for command in field.recorder.commands()[before:] for seat_id in command.seat_ids]
    admin = await asyncpg.connect(consumers.admin_dsn, server_settings={"search_path": "probe"})
    await eventually(lambda: _have_effects(admin, given_out), timeout=60)
    agencies = {line["agency_id"] for line in consumer.logged("new_epoch")}
    findings.recovered(f"the consumer logged the new epoch of {', '.join(sorted(agencies))}")
    assert agencies
    await admin.close()


async def _have_effects(admin: "asyncpg.Connection[Any]", seat_ids: Sequence[str]) -> bool:
    """Whether each of the seats has its effect, and just one."""
    rows = await admin.fetch("select seat_id from effect where seat_id = any($1::text[])", seat_ids)
    effects = [row["seat_id"] for row in rows]
    assert sorted(effects) == sorted(seat_ids)
    return True


async def test_24_what_a_failover_took_before_its_offset_was_kept_is_applied_again(
    field: Field, findings: Findings, postgres_server: Server
) -> None:
    """The server that takes over has everything but the last effects: the consumer's next write there is the offset."""
    consumer = field.start("consumer", breaking=["--stop-before", "keep", "--nth", "2"])
    await field.ready(consumer)
    producer = await field.producer()
    await producer.publish([_seat("first")], START)
    await eventually(lambda: _reading_goes_on_at(field, 1))
    await producer.publish([_seat("second")], START)
    await eventually(lambda: psutil.Process(consumer.pid).status() == psutil.STATUS_STOPPED)
    assert await field.effects("NASA") == ["first", "second"]
    async with field.admin.transaction():
        await field.admin.execute("delete from effect where seat_id = 'second'")
        await field.admin.execute("update applied set last_sequence = 1")
    postgres_server.send(signal.SIGQUIT)
    await eventually(lambda: not postgres_server.runs)
    await postgres_server.up()
    await field.reconnect()
    findings.fault_is_over()
    consumer.send(signal.SIGCONT)
    await eventually(lambda: _reading_goes_on_at(field, 2))
    await eventually(lambda: _have_effects(field.admin, ["first", "second"]))
    findings.recovered("the effects of the second event were there once, although nothing else arrived")


def _seat(seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id="NASA", seat_id=seat_id, subject_ref="sub_1")


async def _reading_goes_on_at(field: Field, offset: int) -> bool:
    kept = await field.admin.fetchval("select sum(next_offset) from consumed_partition")
    assert kept == offset
    return True


async def test_25_on_a_full_disk_postgres_refuses_and_nothing_is_corrupt(
    tmp_path: Path,
    kafka_server: Server,
    topic_prefix: str,
    tokens: TokenIssuer,
    seed: int,
    findings: Findings,
) -> None:
    with SmallDisk(tmp_path / "disk", megabytes=160) as disk:
        server = servers.postgres(disk.folder, {"max_wal_size": "32MB", "min_wal_size": "32MB"})
        await server.up()
        bootstrap = kafka_server.program.address
        async with Field(tmp_path, server.program.address, kafka_at(bootstrap), topic_prefix, tokens, seed) as field:
            await field.serve("relay", "consumer")
            await field.traffic(20)
            await field.at_rest()
            disk.fill()
            asked = [await field.assign_seats("NASA", *_many(number), patient=False) for number in range(40)]
            assert "lost" in {command.ending for command in asked}, "the disk was not full enough to refuse anything"
            reason = await eventually(lambda: readiness_reason(field.api, "Postgres' disk is full"), timeout=60)
            refused = await field.client.post("/v1/agencies/NASA/seats", json={"seat_ids": _many(40)})
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True), refused.text
            assert (await field.client.get("/v1/streams")).status_code == 200
            disk.empty()
            findings.fault_is_over()
            await field.ready(field.api)  # by itself
            assert server.runs
            await field.traffic(20)
            await field.at_rest()
            findings.recovered(f"readiness said: {reason}")
            assert await field.differences() == []
        server.stop()


def _many(number: int) -> list[str]:
    return [f"{number}-{part}-{'x' * 400}" for part in range(300)]
