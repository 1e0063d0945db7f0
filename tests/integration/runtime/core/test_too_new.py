"""A schema that does not fit the code: no event and no deadline is blamed for an error, and no alert ends."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import NoReturn

import pytest
from prometheus_client import REGISTRY
from structlog.testing import CapturingLogger

from muster_contracts import Event, write_headers
from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import SeatAssigned, SeatRevoked
from muster_runtime.database.schema import SchemaTooNew
from muster_runtime.database.transactions import Database
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer import pausing
from muster_runtime.messaging.events import EventHandler
from muster_runtime.messaging.kafka_topics import KafkaTopics
from muster_runtime.messaging.parking import StreamBlocked
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.observability.telemetry import LAG
from muster_runtime.process import monitor
from muster_runtime.scheduling import scheduler
from muster_runtime.scheduling.deadlines import Deadline, schedule
from tests.integration.runtime.core.looks import not_ready, parked_streams, ready, seat, seats
from tests.integration.runtime.core.probe.service import SCHEMA, answer_withdrawals, keep_seats
from tests.integration.runtime.core.streams import at, consumed, effects, holds, parked
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import RunningService

REMEMBER = "insert into schema_migrations (version) values ($1)"
FORGET = "delete from schema_migrations where version = $1"
CONTRACTING = "20990102000001"

NOON = datetime(2025, 8, 6, 12, tzinfo=UTC)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What the consumer logs about partitions that it has paused."""
    log = CapturingLogger()
    monkeypatch.setattr(pausing, "_log", log)
    return log


def has_waited(paused: CapturingLogger, agency_id: str, excuse: str) -> bool:
    reasons = [call.kwargs["reason"] for call in paused.calls if call.args == ("partition_paused",)]
    return any(f"of {agency_id} waits: {excuse}" in reason for reason in reasons)


@pytest.fixture
async def applier(idle_probe: RunningService) -> AsyncIterator[Applier]:
    database = await Database(idle_probe.access.worker_dsn, "probe", idle_probe.clock, schema=SCHEMA).open()
    handlers: dict[type[Event], EventHandler] = {SeatAssigned: keep_seats, AgencyWithdrawn: answer_withdrawals}
    yield Applier(database, Subscriptions(handlers, service="probe", group="probe", clock=database.clock), LIMITS)
    await database.close()


def named(blocked: Sequence[StreamBlocked]) -> list[tuple[str, str]]:
    return [(stream.topic, stream.agency_id) for stream in blocked]


@pytest.mark.parametrize(
    ("begin", "end", "version", "excuse"),
    [
        (REMEMBER, FORGET, CONTRACTING, "SchemaTooNew"),
        (FORGET, REMEMBER, "20250806000100", "MigrationsPending"),
    ],
)
@pytest.mark.parametrize(
    ("changed", "undone"),
    [
        ("add column host text not null", "drop column host"),
        ("add constraint newer check (seat_id <> 'a')", "drop constraint newer"),
    ],
)
async def test_events_that_break_a_rule_of_another_schema_wait_for_it(
    probe: RunningService,
    paused: CapturingLogger,
    begin: str,
    end: str,
    version: str,
    excuse: str,
    changed: str,
    undone: str,
) -> None:
    await eventually(lambda: ready(probe))
    await probe.admin.execute(begin, version)
    await probe.admin.execute(f"alter table effect {changed}")
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"))
    await eventually(lambda: has_waited(paused, "NASA", excuse) and has_waited(paused, "DOE", excuse))
    assert await parked_streams(probe) == set()

    await probe.admin.execute(f"alter table effect {undone}")
    await probe.admin.execute(end, version)
    await eventually(lambda: seats(probe, "NASA", 1))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: ready(probe))
    assert await parked_streams(probe) == set()


async def test_one_agencys_event_that_waits_for_newer_code_delays_no_other_agency(
    probe: RunningService, paused: CapturingLogger
) -> None:
    await probe.admin.execute(REMEMBER, CONTRACTING)
    await probe.admin.execute("alter table effect add constraint newer check (seat_id <> 'a')")
    await probe.publish(seat("NASA", "a"), seat("DOE", "b"))
    await eventually(lambda: seats(probe, "DOE", 1))
    await eventually(lambda: has_waited(paused, "NASA", "SchemaTooNew"))
    assert await parked_streams(probe) == set()


async def test_what_a_stream_parked_for_is_not_refused_for_a_schema_that_is_too_new(
    probe: RunningService, paused: CapturingLogger
) -> None:
    """The missing event arrives, and what waits for it breaks a newer rule."""
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(at(first, 3), seat("NASA", "c"))
    reason = await eventually(lambda: parked(probe, "NASA"))
    await probe.admin.execute(REMEMBER, CONTRACTING)
    await probe.admin.execute("alter table effect add constraint newer check (seat_id <> 'c')")
    await probe.publish(seat("NASA", "b"))
    await eventually(lambda: has_waited(paused, "NASA", "SchemaTooNew"))
    assert await parked(probe, "NASA") == reason

    await probe.admin.execute("alter table effect drop constraint newer")
    await probe.admin.execute(FORGET, CONTRACTING)
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b", "c"]))
    await eventually(lambda: ready(probe))
    assert await parked_streams(probe) == set()


async def test_a_worthless_record_that_waits_in_a_stream_waits_for_no_schema(probe: RunningService) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    headers = write_headers(at(first, 3))
    await probe.producer.put_raw(SeatAssigned.topic, key=b"NASA", value=b"{}", headers=headers)
    await eventually(lambda: parked(probe, "NASA"))
    await probe.admin.execute(REMEMBER, CONTRACTING)
    await probe.publish(seat("NASA", "b"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))

    async def is_named() -> bool:
        return "Unreadable" in (await parked(probe, "NASA") or "")

    await eventually(is_named)


async def test_what_breaks_a_newer_rule_stops_neither_other_agencies_nor_its_agencys_other_topics(
    applier: Applier, idle_probe: RunningService
) -> None:
    await idle_probe.admin.execute(REMEMBER, CONTRACTING)
    await idle_probe.admin.execute("alter table effect add constraint newer check (seat_id <> 'd')")
    withdrawn = AgencyWithdrawn(agency_id="EPA", enrollment_id="enr_1", reason="", withdrawn_at=NOON)
    records = [consumed(seat("EPA", "d"), 1, NOON), consumed(withdrawn, 1, NOON), consumed(seat("DOE", "a"), 1, NOON)]
    assert named(await applier.apply(records)) == [(SeatAssigned.topic, "EPA")]
    assert await effects(idle_probe, "DOE") == ["a"]
    assert await idle_probe.admin.fetchval("select agency_id from outbox") == "EPA"


async def test_what_waited_in_a_parked_stream_and_breaks_a_newer_rule_stops_no_other_agency(
    applier: Applier, idle_probe: RunningService
) -> None:
    assert await applier.apply([consumed(seat("NASA", "a"), 1, NOON), consumed(seat("NASA", "c"), 3, NOON)]) == []
    assert await parked(idle_probe, "NASA")
    await idle_probe.admin.execute(REMEMBER, CONTRACTING)
    await idle_probe.admin.execute("alter table effect add constraint newer check (seat_id <> 'c')")
    blocked = await applier.apply([consumed(seat("NASA", "b"), 2, NOON), consumed(seat("DOE", "a"), 1, NOON)])
    assert named(blocked) == [(SeatAssigned.topic, "NASA")]
    assert await effects(idle_probe, "DOE") == ["a"]


async def test_a_gauge_that_cannot_be_read_keeps_its_value(probe: RunningService) -> None:
    """An alert must not end because an older process can no longer see its cause."""
    await probe.publish(seat("NASA", "poison"))
    await eventually(lambda: parked(probe, "NASA"))
    await eventually(lambda: ready(probe))
    assert REGISTRY.get_sample_value("muster_parked", {"service": "probe"}) == 1
    await probe.admin.execute(REMEMBER, CONTRACTING)
    await probe.admin.execute("alter table outbox rename column recorded_at to recorded_at_of_old")
    await eventually(lambda: not_ready(probe, "the schema is too new: "))
    assert REGISTRY.get_sample_value("muster_parked", {"service": "probe"}) == 1
    assert REGISTRY.get_sample_value("muster_parked_records", {"service": "probe"}) == 1


async def test_the_lag_keeps_its_value_for_a_while_without_an_answer_of_kafka(
    probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert must not end because Kafka has answered one query too late."""

    async def time_out(_: KafkaTopics) -> NoReturn:
        raise TimeoutError

    def lag() -> float | None:
        return REGISTRY.get_sample_value("muster_lag", {"service": "probe"})

    await eventually(lambda: ready(probe))
    monkeypatch.setattr(KafkaTopics, "look", time_out)
    LAG.labels("probe").set(7)
    await eventually(lambda: not_ready(probe, "Kafka cannot be reached"))
    assert lag() == 7
    monkeypatch.setattr(monitor, "LAG_KEPT_SECONDS", 0)
    await eventually(lambda: not_ready(probe, "Kafka cannot be reached"))
    assert lag() == 0


async def test_a_deadline_that_breaks_a_rule_of_a_newer_schema_waits_for_newer_code(
    probe: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(scheduler, "_log", log)
    start = datetime(2025, 8, 6, tzinfo=UTC)
    probe.clock.move(start)
    await probe.admin.execute(REMEMBER, CONTRACTING)
    await probe.admin.execute("alter table outbox add column host text not null")
    async with probe.runtime.database.write("NASA", context=CONTEXT) as uow:
        schedule(uow, [Deadline("revoke", "NASA", "seat_1", start)])

    def has_waited() -> bool:
        failed = [call.kwargs for call in log.calls if call.args == ("deadline_failed",)]
        return any(isinstance(each["exc_info"], SchemaTooNew) and each["agency_id"] == "NASA" for each in failed)

    async def is_handled() -> bool:
        return [event.data.seat_id for event in await probe.published(SeatRevoked)] == ["seat_1"]

    await eventually(has_waited)
    assert await probe.admin.fetchval("select count(*) from deadline where parked_at is null") == 1
    await probe.admin.execute("alter table outbox drop column host")
    await probe.admin.execute(FORGET, CONTRACTING)
    await eventually(is_handled)
