"""What is bounded, and what happens at the bound: full streams, the breaker, a stuck client, an honest readiness."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from muster_contracts import topics, write_headers
from muster_contracts.entitlements import SeatAssigned
from muster_local.topics import connect, delete_topics
from muster_runtime.consumer import ConsumerStuck
from muster_runtime.context import Context
from muster_runtime.process import Process, Role, StartRefused, running
from muster_runtime.producers import partition_of
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.probe.service import build
from tests.integration.runtime.http import sample
from tests.support.services import PARTITIONS, RunningService, ServiceRunner

Eventually = Callable[..., Awaitable[Any]]
TOPIC = "muster.entitlements.seat"
DIRECTORY = "muster.entitlements.directory"
AGENCIES = ("NASA", "DOE", "EPA", "DOL", "HHS", "USDA", "VA", "DOT")


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


def elsewhere(agency_id: str) -> str:
    """An agency whose events are in another partition."""
    home = partition_of(agency_id.encode(), PARTITIONS)
    return next(other for other in AGENCIES if partition_of(other.encode(), PARTITIONS) != home)


async def seats(probe: RunningService, agency_id: str, count: int) -> bool:
    assert await probe.admin.fetchval("select count(*) from effect where agency_id = $1", agency_id) == count
    return True


async def reasons(probe: RunningService) -> str:
    reply = await probe.client.get("/health/ready")
    assert reply.status_code == (200 if reply.json()["ready"] else 503)
    assert (await probe.client.get("/health/live")).status_code == 200
    return "; ".join(reply.json()["reasons"])


async def not_ready(probe: RunningService, because: str) -> bool:
    assert because in await reasons(probe)
    return True


async def ready(probe: RunningService) -> bool:
    assert await reasons(probe) == ""
    return True


async def parked_streams(probe: RunningService) -> set[tuple[str, int]]:
    rows = await probe.admin.fetch("select agency_id, records from parked_stream")
    return {tuple(row) for row in rows}


async def test_a_full_stream_pauses_its_partition_until_there_is_room(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    probe = await run_service(
        build,
        Settings,
        roles=frozenset({Role.CONSUMER}),  # the relay would find its topic ahead of its database
        parked_records=3,
        consumer_batch_records=1,
        consumer_stuck_seconds=3,
        postgres_pool_size=5,
    )
    await probe.publish(seat("NASA", "poison"), *(seat("NASA", f"{n}") for n in range(5)))
    await eventually(lambda: not_ready(probe, "the parked stream of NASA on muster.entitlements.seat is full"))
    assert await parked_streams(probe) == {("NASA", 3)}
    consumer = probe.process.consumer
    assert consumer is not None
    assert [p.partition for p in consumer._kafka.paused()] == [partition_of(b"NASA", PARTITIONS)]

    other = elsewhere("NASA")
    await probe.publish(seat(other, "a"), seat(other, "b"))
    await eventually(lambda: seats(probe, other, 2))

    await discard(probe, "NASA")
    await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")
    await eventually(lambda: seats(probe, "NASA", 5))
    await eventually(lambda: ready(probe))
    assert await parked_streams(probe) == set()


async def test_the_breaker_stops_a_consumer_that_parks_too_many_streams(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    probe = await run_service(build, Settings, parked_streams=2, consumer_batch_records=1)
    for agency_id in ("NASA", "DOE"):
        await probe.publish(seat(agency_id, "poison"))
    await eventually(lambda: parked_streams(probe))
    await probe.publish(seat("EPA", "poison"), seat("EPA", "after"))
    await eventually(lambda: not_ready(probe, "the breaker is open: 2 streams have parked within 10 minutes"))
    assert {agency_id for agency_id, _ in await parked_streams(probe)} == {"NASA", "DOE"}

    await discard(probe, "NASA")
    await eventually(lambda: has_parked(probe, {"DOE", "EPA"}))
    await eventually(lambda: ready(probe))


async def test_worthless_records_do_not_open_the_breaker(run_service: ServiceRunner, eventually: Eventually) -> None:
    """Gaps, values of a wrong shape, numbers out of range: whoever writes them stops no other agency."""
    probe = await run_service(build, Settings, parked_streams=1)
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(first._replace(agency_id="DOE", sequence=7, id="gap"), seat("DOE", "gap"))
    for agency_id in ("EPA", "DOL", "HHS"):
        headers = write_headers(first._replace(agency_id=agency_id, id=agency_id))
        await probe.producer.put_raw(TOPIC, key=agency_id.encode(), value=b"{}", headers=headers)
    await probe.producer.put(first._replace(agency_id="VA", id="VA"), seat("VA", "\0"))
    await probe.producer.put_raw(TOPIC, key=b"no agency", value=b"", headers=[])
    await eventually(lambda: has_parked(probe, {"DOE", "EPA", "DOL", "HHS", "VA", "?"}))
    await probe.publish(seat("NASA", "b"))
    await eventually(lambda: seats(probe, "NASA", 2))
    await eventually(lambda: ready(probe))


async def has_parked(probe: RunningService, agencies: set[str]) -> bool:
    assert {agency_id for agency_id, _ in await parked_streams(probe)} == agencies
    return True


@asynccontextmanager
async def second_process(probe: RunningService, **changes: Any) -> AsyncIterator[Process]:
    """A process of the probe that may break down, beside one that only serves HTTP."""
    settings = probe.runtime.settings.model_copy(update={"instance": "second", **changes})
    async with running(build(settings)) as process:
        yield process


async def test_a_consumer_that_is_behind_and_does_nothing_ends_its_process(idle_probe: RunningService) -> None:
    async with second_process(idle_probe, consumer_stuck_seconds=1.5) as process:
        consumer = process.consumer
        assert consumer is not None
        await consumer.assigned.wait()
        consumer._kafka.pause(*consumer._kafka.assignment())  # as lost as a client that fetches no more
        await idle_probe.publish(seat("NASA", "a"))
        with pytest.raises(ConsumerStuck, match=r"1 records behind and has done nothing for \d+ s"):
            await asyncio.wait_for(asyncio.shield(process.failed), 30)


async def test_a_full_outbox_refuses_commands_until_events_are_published(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    """As while Kafka is away for long. What consumers and deadlines decide is taken all the same."""
    api = await run_service(sample.build, Settings, roles=frozenset({Role.API}), outbox_rows=2)
    for _ in range(2):
        async with api.runtime.database.write("NASA", context=Context(actor="test", correlation_id="cor_1")) as uow:
            uow.publish(seat("NASA", "a"))
    await api.client.get("/health/ready")
    refused = await api.client.post("/v1/agencies/NASA/notes", json={"text": "too many"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "too many events wait to be published" in refused.json()["detail"]

    await api.admin.execute("delete from outbox")  # as a relay would
    await api.client.get("/health/ready")
    assert (await api.client.post("/v1/agencies/NASA/notes", json={"text": "again"})).status_code == 201


async def test_a_quiet_consumer_is_not_taken_for_a_stuck_one(idle_probe: RunningService) -> None:
    async with second_process(idle_probe, consumer_stuck_seconds=0.3) as process:
        done, _ = await asyncio.wait([process.failed], timeout=3)
        assert not done


async def test_readiness_tells_of_a_missing_topic(probe: RunningService, eventually: Eventually) -> None:
    await eventually(lambda: ready(probe))
    await delete_topics(probe.runtime.settings.kafka_bootstrap, [probe.topic_prefix + TOPIC])
    await eventually(lambda: not_ready(probe, f"the topic {probe.topic_prefix}{TOPIC} is missing"))


async def add_a_partition(probe: RunningService) -> None:
    async with connect(probe.runtime.settings.kafka_bootstrap) as admin:
        await admin.create_partitions({probe.topic_prefix + TOPIC: NewPartitions(PARTITIONS + 1)})


async def test_readiness_tells_of_added_partitions(probe: RunningService, eventually: Eventually) -> None:
    await add_a_partition(probe)
    await eventually(lambda: not_ready(probe, f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"))


async def test_nothing_is_published_to_a_topic_with_added_partitions_not_even_after_a_restart(
    idle_probe: RunningService, run_service: ServiceRunner, eventually: Eventually
) -> None:
    await add_a_partition(idle_probe)
    probe = await run_service(build, Settings, roles=frozenset({Role.RELAY}), beside=idle_probe)
    async with probe.runtime.database.write("NASA", context=Context(actor="test", correlation_id="cor_1")) as uow:
        uow.publish(seat("NASA", "a"))
        uow.wake()
    why = f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"
    await eventually(
        lambda: not_ready(
            probe, f"the relay cannot publish: TopicRepartitioned: the topic {probe.topic_prefix}{TOPIC} {why}"
        )
    )
    assert await probe.admin.fetchval("select count(*) from outbox") == 1
    assert await probe.published(SeatAssigned) == []


async def test_nothing_is_applied_of_a_topic_with_added_partitions_not_even_after_a_restart(
    idle_probe: RunningService, run_service: ServiceRunner, eventually: Eventually
) -> None:
    await add_a_partition(idle_probe)
    probe = await run_service(build, Settings, roles=frozenset({Role.CONSUMER}), beside=idle_probe)
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    why = f"has {PARTITIONS + 1} partitions and needs {PARTITIONS}"
    await eventually(lambda: not_ready(probe, f"reading waits: the topic {probe.topic_prefix}{TOPIC} {why}"))
    assert await probe.admin.fetchval("select count(*) from effect") == 0
    assert await parked_streams(probe) == set()


async def set_otherwise(service: RunningService, topic: str, setting: str, value: str) -> None:
    """Have a topic as an administrator might have set it."""
    async with connect(service.runtime.settings.kafka_bootstrap) as admin:
        name = service.topic_prefix + topic
        configs = {**topics()[topic].settings, setting: value}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])


async def test_readiness_tells_of_a_topic_that_would_lose_events(probe: RunningService, eventually: Eventually) -> None:
    await eventually(lambda: ready(probe))
    await set_otherwise(probe, TOPIC, "retention.ms", "1000")
    await eventually(lambda: not_ready(probe, "has retention.ms=1000 and needs -1"))


def build_with_directory(settings: Settings) -> Service:
    """The probe as a service that owns a compacted topic as well."""
    return replace(build(settings), produces=[TOPIC, DIRECTORY])


@pytest.mark.parametrize(
    ("topic", "setting", "value", "needed"),
    [
        (TOPIC, "retention.ms", "1000", "-1"),
        (TOPIC, "retention.bytes", "1000000", "-1"),
        (DIRECTORY, "delete.retention.ms", "86400000", "157766400000"),
        (DIRECTORY, "cleanup.policy", "delete", "compact"),
    ],
)
async def test_a_topic_that_would_lose_events_is_refused_at_the_start_and_told_of_later(
    run_service: ServiceRunner, eventually: Eventually, topic: str, setting: str, value: str, needed: str
) -> None:
    service = await run_service(build_with_directory, Settings, roles=frozenset({Role.RELAY}))
    await eventually(lambda: ready(service))
    await set_otherwise(service, topic, setting, value)
    fault = f"{service.topic_prefix}{topic} has {setting}={value} and needs {needed}"
    await eventually(lambda: not_ready(service, f"events would be lost: {fault}"))
    with pytest.raises(StartRefused, match=re.escape(fault)):
        async with running(build_with_directory(service.runtime.settings), frozenset({Role.RELAY})):
            pass


async def test_readiness_tells_of_pending_migrations(run_service: ServiceRunner, eventually: Eventually) -> None:
    first = await run_service(build, Settings, roles=frozenset())
    version = await first.admin.fetchval(
        "delete from schema_migrations where version = '20250806000100' returning version"
    )
    second = await run_service(build, Settings, beside=first)
    await eventually(lambda: not_ready(second, f"migrations are pending: {version}"))
    await first.admin.execute("insert into schema_migrations (version) values ($1)", version)
    await eventually(lambda: ready(second))


async def test_code_that_is_ahead_of_its_migration_parks_nothing(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    """A deployment whose migration was forgotten: no event is to blame for the column that is not there."""
    probe = await run_service(build, Settings)
    await eventually(lambda: ready(probe))
    version = await probe.admin.fetchval(
        "delete from schema_migrations where version = '20250806000100' returning version"
    )
    await probe.admin.execute("alter table effect rename column seat_id to seat_id_of_old")
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply: MigrationsPending"))
    await eventually(lambda: not_ready(probe, f"migrations are pending: {version}"))
    assert await parked_streams(probe) == set()

    await probe.admin.execute("alter table effect rename column seat_id_of_old to seat_id")
    await probe.admin.execute("insert into schema_migrations (version) values ($1)", version)
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: ready(probe))


async def test_a_handler_that_breaks_a_rule_of_postgres_parks_its_stream_alone(
    probe: RunningService, eventually: Eventually
) -> None:
    """Class 42 as well, but every migration is applied: it is the handler's fault, and with this event alone."""
    await fail_with(probe, "insufficient_privilege", agency_id="NASA")
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: has_parked(probe, {"NASA"}))


@pytest.mark.parametrize(
    ("condition", "refuses"),
    [
        ("statement_too_complex", ["effect"]),
        ("program_limit_exceeded", ["effect", "parked_event"]),  # no transaction id is left, whatever the table
    ],
)
async def test_a_limit_of_the_server_parks_nothing(
    probe: RunningService, eventually: Eventually, condition: str, refuses: list[str]
) -> None:
    await fail_with(probe, condition, tables=refuses)
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply"))
    assert await parked_streams(probe) == set()
    await probe.admin.execute("drop function failing cascade")
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: seats(probe, "DOE", 1))
    assert await parked_streams(probe) == set()


async def test_a_value_that_no_index_can_hold_parks_its_stream_alone(
    probe: RunningService, eventually: Eventually
) -> None:
    """Postgres reports it in the same class as its own limits."""
    await probe.admin.execute("create index on effect (seat_id)")
    await probe.publish(seat("NASA", secrets.token_hex(10_000)), seat("DOE", "a"))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: has_parked(probe, {"NASA"}))


async def fail_with(
    probe: RunningService, condition: str, *, tables: Sequence[str] = ("effect",), agency_id: str | None = None
) -> None:
    """Let rows, of one agency or all, be refused with an error of Postgres' own; the reason for it is the test's."""
    of_agency = f"when (new.agency_id = '{agency_id}')" if agency_id else ""
    await probe.admin.execute(
        f"""
        create function failing() returns trigger language plpgsql as $$
        begin
            raise exception 'refused by the test' using errcode = '{condition}';
        end $$;
        """
        + "".join(
            f"create trigger failing before insert on {table} for each row {of_agency} execute function failing();"
            for table in tables
        )
    )


async def test_readiness_tells_of_a_postgres_that_is_away(
    probe: RunningService, postgres: str, eventually: Eventually
) -> None:
    await eventually(lambda: ready(probe))
    database = await probe.admin.fetchval("select current_database()")
    outside = await asyncpg.connect(postgres)
    try:
        await outside.execute(f'alter database "{database}" with connection limit 0')
        await outside.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename <> current_user",
            database,
        )
        await eventually(lambda: not_ready(probe, "Postgres cannot be reached"))
        await outside.execute(f'alter database "{database}" with connection limit -1')
        await eventually(lambda: ready(probe))
    finally:
        await outside.close()


async def test_a_write_that_finds_the_disk_full_is_told_until_there_is_room(
    probe: RunningService, eventually: Eventually
) -> None:
    """Postgres answers as it does when the disk is full: the error is its own, the reason for it is the test's."""
    await probe.admin.execute(
        """
        create function no_room() returns trigger language plpgsql as $$
        begin
            raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
        end $$;
        create trigger no_room before insert on effect for each row execute function no_room();
        create trigger no_room before insert on lease for each row
        when (new.duty like 'room/%') execute function no_room();
        """
    )
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: not_ready(probe, "the disk of Postgres is full"))
    await eventually(lambda: not_ready(probe, "the consumer cannot apply: DiskFullError"))
    await probe.admin.execute("drop function no_room cascade")
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: ready(probe))


async def test_the_oldest_snapshot_is_measured_whoever_holds_it(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    """An operator's console, reading or writing; the worker learns how old, and nothing more."""
    probe = await run_service(build, Settings, roles=frozenset({Role.API}))

    async def age() -> float:
        await probe.client.get("/health/ready")
        lines = (await probe.client.get("/metrics")).text.splitlines()
        (found,) = [line for line in lines if line.startswith('muster_oldest_snapshot_seconds{service="probe"}')]
        return float(found.split()[-1])

    async def is_short() -> bool:
        return await age() < 1

    async def is_longer_than_a_second() -> bool:
        return await age() > 1

    await eventually(is_short)
    for begin, statement in (
        ("begin isolation level repeatable read", "select 1 from outbox"),
        ("begin", "select pg_current_xact_id()"),
    ):
        await probe.admin.execute(begin)
        await probe.admin.execute(statement)
        await eventually(is_longer_than_a_second)
        await probe.admin.execute("rollback")
        await eventually(is_short)
    worker = await asyncpg.connect(probe.access.worker_dsn)
    assert await worker.fetchval("select not pg_has_role('pg_read_all_stats', 'usage')")
    await worker.close()
