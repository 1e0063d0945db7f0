"""The consumer: once, in order; gaps, poison and what cannot be read park one agency's stream alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from muster_contracts import Envelope, write_headers
from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import SeatAssigned, SeatRevoked
from muster_operator.topics import connect
from muster_runtime.messaging.producers import partition_of
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard, put_unreadable
from tests.integration.runtime.core.probe.service import build, build_answering
from tests.support.services import PARTITIONS, RunningService, ServiceRunner
from tests.support.topics import Producer

Eventually = Callable[..., Awaitable[Any]]
TOPIC = "muster.entitlements.seat"


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def effects(probe: RunningService, agency_id: str) -> list[str]:
    rows = await probe.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
    return [row["seat_id"] for row in rows]


async def parked(probe: RunningService, agency_id: str) -> str | None:
    reason: str | None = await probe.admin.fetchval("select reason from parked_stream where agency_id = $1", agency_id)
    return reason


async def last_sequence(probe: RunningService, agency_id: str) -> int | None:
    number: int | None = await probe.admin.fetchval("select last_sequence from applied where agency_id = $1", agency_id)
    return number


async def test_a_repeated_event_is_applied_once(probe: RunningService, eventually: Eventually) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(first, seat("NASA", "a"))
    await probe.publish(seat("NASA", "b"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))


async def test_the_marker_of_a_transaction_is_no_record_to_wait_for(
    probe: RunningService, eventually: Eventually
) -> None:
    """It takes the offset behind the last record; a consumer that took it for lag would end its process."""
    settings = probe.runtime.settings
    async with Producer(settings.kafka_bootstrap, settings.topic_prefix, "tests") as producer:
        await producer.publish([seat("NASA", "a")], probe.clock.now())
    await eventually(lambda: _is(effects(probe, "NASA"), ["a"]))
    consumer = probe.process.consumer
    assert consumer is not None

    async def marker_is_there() -> bool:
        ends: dict[Any, int] = await consumer._ends.end_offsets(list(consumer._client().assignment()))
        return sum(ends.values()) == 2

    await eventually(marker_is_there)
    await eventually(lambda: _is(consumer.lag(), 0))


async def test_a_gap_parks_the_agency_and_no_other(probe: RunningService, eventually: Eventually) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    await probe.producer.put(_at(first, 3), seat("NASA", "c"))
    await probe.publish(seat("DOE", "other"))
    await eventually(lambda: _is(effects(probe, "DOE"), ["other"]))
    assert "sequence 2 was expected and 3 came" in await eventually(lambda: parked(probe, "NASA"))
    assert await effects(probe, "NASA") == ["a"]


async def test_the_first_event_of_a_stream_must_be_number_one(probe: RunningService, eventually: Eventually) -> None:
    (first,) = await probe.publish(seat("DOE", "a"))
    await probe.producer.put(_at(first._replace(agency_id="NASA"), 2), seat("NASA", "b"))
    assert "sequence 1 was expected" in await eventually(lambda: parked(probe, "NASA"))


@pytest.mark.parametrize(("last", "first"), [(1, 2), (2, 2)])
async def test_a_higher_epoch_is_taken_where_it_repeats_or_continues(
    probe: RunningService, eventually: Eventually, last: int, first: int
) -> None:
    known = [f"{number}" for number in range(1, last + 1)]
    envelopes = await probe.publish(*(seat("NASA", name) for name in known))
    await probe.producer.put(_at(envelopes[0], first)._replace(epoch=2), seat("NASA", "restored"))
    await eventually(lambda: _is(effects(probe, "NASA"), [*known, "restored"]))
    await probe.producer.put(_at(envelopes[0], 3), seat("NASA", "of the epoch before"))
    await probe.publish(seat("DOE", "marker"))
    await eventually(lambda: _is(effects(probe, "DOE"), ["marker"]))
    assert await effects(probe, "NASA") == [*known, "restored"]
    assert await parked(probe, "NASA") is None


@pytest.mark.parametrize(("known", "epoch", "sequence", "expected"), [(1, 2, 4, 2), (0, 2, 50, 1)])
async def test_a_higher_epoch_that_skips_is_a_gap_until_it_is_accepted(
    probe: RunningService, eventually: Eventually, known: int, epoch: int, sequence: int, expected: int
) -> None:
    (first,) = await probe.publish(seat("NASA" if known else "DOE", "a"))
    late = _at(first._replace(agency_id="NASA", epoch=epoch), sequence)
    await probe.producer.put(late, seat("NASA", "restored"))
    reason = await eventually(lambda: parked(probe, "NASA"))
    assert f"sequence {expected} was expected and {sequence} came" in reason
    gap = {"waiting": sequence, "reason": "lost with the old server"}
    accepted = await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=gap)
    assert accepted.status_code == 200
    assert (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json() == {"parked": False, "reason": None}
    assert (await effects(probe, "NASA"))[-1] == "restored"
    assert await probe.admin.fetchval("select count(*) from audit where command = 'AcceptGap'") == 1
    assert await probe.admin.fetchval("select epoch from applied where agency_id = 'NASA'") == epoch


async def test_poison_parks_its_stream_in_order_and_replay_applies_it(
    probe: RunningService, eventually: Eventually
) -> None:
    await probe.publish(seat("NASA", "a"), seat("NASA", "poison"), seat("NASA", "b"), seat("DOE", "other"))
    await eventually(lambda: _is(effects(probe, "DOE"), ["other"]))
    assert "poison" in await eventually(lambda: parked(probe, "NASA"))
    await probe.publish(seat("NASA", "c"))
    await eventually(lambda: _is(_waiting(probe), 3))
    assert await effects(probe, "NASA") == ["a"]

    listed = (await probe.client.get("/v1/parked")).json()["items"]
    assert [(s["topic"], s["agency_id"], s["records"]) for s in listed] == [(TOPIC, "NASA", 3)]
    shown = (await probe.client.get(f"/v1/parked/{TOPIC}/NASA")).json()
    assert [r["headers"]["ce_sequence"][-1] for r in shown["first_records"]] == ["2", "3", "4"]

    refused = (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json()
    assert refused["parked"]
    assert "poison" in refused["reason"]
    assert await effects(probe, "NASA") == ["a"]

    assert (await discard(probe, "NASA")).json() == {"left": 2}
    assert (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json() == {"parked": False, "reason": None}
    assert await effects(probe, "NASA") == ["a", "b", "c"]
    await probe.publish(seat("NASA", "d"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b", "c", "d"]))
    audited = await probe.admin.fetch("select command, reason from audit order by id")
    assert [tuple(row) for row in audited] == [
        ("DiscardParkedRecord", "entered by mistake"),
        ("ReplayParkedStream", None),
    ]
    assert (await probe.client.get(f"/v1/parked/{TOPIC}/NASA")).status_code == 404


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": b"\xff\xfe not JSON"}, "does not fit"),
        ({"value": b'{"agency_id": "NASA"}'}, "seat_id"),
        ({"value": None}, "does not fit"),
        ({"headers": []}, "is missing"),
        ({"type": "muster.entitlements.SeatAssigned.v" + "9" * 5000}, "not 1 to 256 bytes"),
        ({"type": "muster.entitlements.SeatAssigned.v" + "9" * 50}, "not muster."),
        ({"sequence": b"1" + b"0" * 20}, "not a whole number from 1 to"),
        ({"epoch": b"2147483648"}, "not a whole number from 1 to"),
        ({"correlationid": b"x\x1b[31m" * 1000}, "... (6,000 in all)"),
        ({"type": "muster.entitlements.SeatAssigned.v2"}, "unknown major version"),
        ({"sequence": b"many"}, "not a whole number"),
        ({"partitionkey": b"DOE"}, "partitionkey"),
        ({"value": b'{"agency_id": "DOE", "seat_id": "b", "subject_ref": "s"}'}, "partitionkey"),
        ({"value": b'{"agency_id": "NASA", "seat_id": "poison", "subject_ref": "\\u0000"}'}, "poison"),
    ],
)
async def test_what_cannot_be_read_is_parked_raw(
    probe: RunningService, eventually: Eventually, change: dict[str, Any], reason: str
) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    headers = dict(write_headers(_at(first, 2)))
    if "type" in change:
        headers["ce_type"] = change["type"].encode()
    for attribute in ("epoch", "sequence", "partitionkey", "correlationid"):
        if attribute in change:
            headers[f"ce_{attribute}"] = change[attribute]
    value = change.get("value", seat("NASA", "b").model_dump_json().encode())
    await probe.producer.put_raw(TOPIC, key=b"NASA", value=value, headers=change.get("headers", list(headers.items())))
    await probe.publish(seat("DOE", "other"))
    assert reason in await eventually(lambda: parked(probe, "NASA"))
    assert await probe.admin.fetchval("select value from parked_event") == value
    await eventually(lambda: _is(effects(probe, "DOE"), ["other"]))


async def test_a_discarded_record_of_a_newer_major_does_not_park_when_it_is_read_again(
    probe: RunningService, eventually: Eventually
) -> None:
    """As after a rewind: the position is known, whatever the record holds."""
    (first,) = await probe.publish(seat("NASA", "a"))
    newer = _at(first, 2)._replace(type="muster.entitlements.SeatAssigned.v2")
    await probe.producer.put(newer, seat("NASA", "new"))
    assert "unknown major" in await eventually(lambda: parked(probe, "NASA"))
    assert (await discard(probe, "NASA")).json() == {"left": 0}
    await probe.producer.put(newer, seat("NASA", "new"))
    await probe.producer.put(_at(first, 3), seat("NASA", "b"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))
    assert await parked(probe, "NASA") is None


async def test_events_in_two_partitions_are_applied_by_their_position(
    probe: RunningService, eventually: Eventually
) -> None:
    """As after partitions were added: the new one was read first. What cannot be read stands where it lies."""
    (first,) = await probe.publish(seat("DOE", "a"))
    first = first._replace(agency_id="NASA")
    await probe.producer.put(_at(first, 4), seat("NASA", "4"), partition=0)
    await eventually(lambda: parked(probe, "NASA"))
    await probe.producer.put(_at(first, 6), seat("NASA", "6"), partition=1)
    await probe.producer.put_raw(TOPIC, key=b"NASA", value=b"junk", headers=[], partition=1)
    await eventually(lambda: _is(_waiting(probe), 3))
    for sequence in (1, 2, 3, 5):
        await probe.producer.put(_at(first, sequence), seat("NASA", f"{sequence}"), partition=0)
    await eventually(lambda: _is(parked(probe, "NASA"), "header ce_specversion is missing"))
    assert await effects(probe, "NASA") == ["1", "2", "3", "4", "5", "6"]
    assert (await discard(probe, "NASA")).json() == {"left": 0}
    assert await parked(probe, "NASA") is None


async def test_an_unknown_type_is_acknowledged_and_its_sequence_counts(
    probe: RunningService, eventually: Eventually
) -> None:
    revoked = SeatRevoked(agency_id="NASA", seat_id="a", subject_ref="sub_1", reason="requested")
    await probe.publish(seat("NASA", "a"), revoked, seat("NASA", "b"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))
    assert await last_sequence(probe, "NASA") == 3
    assert await parked(probe, "NASA") is None


async def test_what_follows_from_an_event_carries_its_origin(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    answering = await run_service(build_answering, Settings)
    withdrawn = AgencyWithdrawn(
        agency_id="NASA", enrollment_id="enr_1", reason="test", withdrawn_at=answering.clock.now()
    )
    (cause,) = await answering.publish(withdrawn)
    (answer,) = await eventually(lambda: answering.published(SeatRevoked))
    assert answer.envelope.correlation_id == cause.correlation_id
    assert answer.envelope.causation_id == cause.id


async def test_a_record_without_a_key_parks_alone(probe: RunningService, eventually: Eventually) -> None:
    await probe.producer.put_raw(TOPIC, key=None, value=b"{}", headers=[])
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a"]))
    assert await eventually(lambda: parked(probe, "?"))


async def test_parked_streams_are_not_for_one_agencys_token(probe: RunningService) -> None:
    token = probe.token("probe:operate", agency="NASA")
    reply = await probe.client.get("/v1/parked", headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 403


async def test_an_agency_whose_lock_is_held_elsewhere_waits_alone(
    probe: RunningService, eventually: Eventually
) -> None:
    """A forgotten transaction of an operator's; the partition of the two agencies is not DOE's."""
    async with probe.admin.transaction():
        await probe.admin.execute("select lock_agencies('{NASA,EPA}')")
        await probe.publish(seat("NASA", "a"), seat("EPA", "a"), seat("DOE", "a"))
        await eventually(lambda: _is(elsewhere(probe, "DOE"), ["a"]))
        await probe.publish(seat("DOE", "b"), seat("NASA", "b"))
        await eventually(lambda: _is(elsewhere(probe, "DOE"), ["a", "b"]))
        assert await elsewhere(probe, "NASA") == []
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))
    await eventually(lambda: _is(effects(probe, "EPA"), ["a"]))
    assert await parked(probe, "NASA") is None


async def test_an_agency_whose_rows_cannot_be_read_waits_alone(probe: RunningService, eventually: Eventually) -> None:
    """The error is Postgres' own for a damaged page; the reason for it is the test's."""
    await probe.admin.execute(
        """
        create function damaged() returns trigger language plpgsql as $$
        begin
            raise exception 'invalid page in block 0' using errcode = 'data_corrupted';
        end $$;
        create trigger damaged before insert on effect for each row when (new.agency_id = 'NASA')
        execute function damaged();
        """
    )
    await probe.publish(seat("NASA", "a"), seat("DOE", "a"), seat("DOE", "b"))
    await eventually(lambda: _is(effects(probe, "DOE"), ["a", "b"]))
    assert await parked(probe, "NASA") is None
    await probe.admin.execute("drop function damaged cascade")
    await eventually(lambda: _is(effects(probe, "NASA"), ["a"]))


async def test_a_record_that_the_client_cannot_read_costs_no_other_partition_a_record(
    run_service: ServiceRunner, eventually: Eventually
) -> None:
    """The name of a header is no UTF-8; what the client had taken of other partitions goes with the error."""
    probe = await run_service(build, Settings, consumer_stuck_seconds=2)
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a"]))
    await put_unreadable(probe, "NASA")
    for number in range(20):
        await probe.publish(seat("DOE", f"{number}"))
    await eventually(lambda: _is(effects(probe, "DOE"), [f"{number}" for number in range(20)]))
    assert await parked(probe, "DOE") is None
    reasons = (await probe.client.get("/health/ready")).json()["reasons"]
    assert any("cannot be read: UnicodeDecodeError" in reason for reason in reasons)
    ended, _ = await asyncio.wait([probe.process.failed], timeout=4)
    assert not ended  # it is not the client's fault


async def test_an_operator_lets_the_consumer_past_a_record_that_it_cannot_decode(
    probe: RunningService, eventually: Eventually
) -> None:
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await put_unreadable(probe, "NASA")
    await probe.publish(seat("NASA", "c"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))
    partition = partition_of(b"NASA", PARTITIONS)
    named = f"{probe.topic_prefix}{TOPIC}[{partition}]@2 cannot be read: UnicodeDecodeError"
    await eventually(lambda: _tells(probe, named))

    ordered = {"offset": 2, "reason": "damaged on its way, see ticket 4711"}
    for _ in range(2):
        reply = await probe.client.post(f"/v1/partitions/{TOPIC}/{partition}/pass", json=ordered)
        assert reply.json() == {"topic": TOPIC, "partition": partition, "first_offset": 2, "last_offset": 2}
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b", "c"]))
    await eventually(lambda: _is(_readiness(probe), []))
    (audited,) = await probe.admin.fetch("select command, subject, reason, actor from audit")
    assert tuple(audited) == ("PassRecord", f"{TOPIC}[{partition}]@2", ordered["reason"], "operator")


async def test_a_record_that_can_be_read_is_passed_by_nobodys_order(
    probe: RunningService, eventually: Eventually
) -> None:
    ordered = {"offset": 0, "last_offset": 5, "reason": "the wrong partition"}
    reply = await probe.client.post(f"/v1/partitions/{TOPIC}/{partition_of(b'NASA', PARTITIONS)}/pass", json=ordered)
    assert reply.status_code == 200
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))


@pytest.mark.parametrize(
    ("topic", "body", "status", "said"),
    [
        ("muster.billing.term", {"offset": 1}, 404, "neither reads nor writes the topic"),
        (TOPIC, {"offset": 2, "last_offset": 1}, 422, "last_offset: 1 is invalid"),
        (TOPIC, {"offset": 2**63}, 422, "offset"),
    ],
)
async def test_an_order_to_pass_that_makes_no_sense_is_refused(
    idle_probe: RunningService, topic: str, body: dict[str, int], status: int, said: str
) -> None:
    reply = await idle_probe.client.post(f"/v1/partitions/{topic}/0/pass", json={**body, "reason": "no reason"})
    assert (reply.status_code, said in reply.text) == (status, True)


async def test_a_new_group_waits_quietly_at_a_partition_that_was_emptied(
    idle_probe: RunningService, run_service: ServiceRunner, eventually: Eventually
) -> None:
    """By an operator's delete-records: what the client would begin with is not there."""
    await idle_probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    partition = TopicPartition(idle_probe.topic_prefix + TOPIC, partition_of(b"NASA", PARTITIONS))
    async with connect(idle_probe.runtime.settings.kafka_bootstrap) as admin:
        await admin.delete_records({partition: RecordsToDelete(2)})
    probe = await run_service(build, Settings, beside=idle_probe, consumer_stuck_seconds=1)
    await eventually(lambda: _is(_readiness(probe), []))
    ended, _ = await asyncio.wait([probe.process.failed], timeout=3)
    assert not ended
    assert probe.process.consumer is not None
    assert await probe.process.consumer.lag() == 0


async def test_an_error_that_no_event_is_to_blame_for_is_outlasted(
    probe: RunningService, eventually: Eventually
) -> None:
    """Even one that nobody has thought of: neither the effects' table is there nor the parked events'."""
    await probe.admin.execute("alter table effect rename to effect_away")
    await probe.admin.execute("alter table parked_event rename to parked_event_away")
    await probe.publish(seat("NASA", "a"), seat("NASA", "b"))
    await eventually(lambda: _complains(probe))
    await probe.admin.execute("alter table parked_event_away rename to parked_event")
    await probe.admin.execute("alter table effect_away rename to effect")
    await eventually(lambda: _is(effects(probe, "NASA"), ["a", "b"]))
    assert await last_sequence(probe, "NASA") == 2


async def elsewhere(probe: RunningService, agency_id: str) -> list[str]:
    """The effects, by a connection that is in no transaction."""
    rows = await probe.runtime.database.pool.fetch(
        "select seat_id from effect where agency_id = $1 order by id", agency_id
    )
    return [row["seat_id"] for row in rows]


async def _readiness(probe: RunningService) -> list[str]:
    reasons: list[str] = (await probe.client.get("/health/ready")).json()["reasons"]
    return reasons


async def _tells(probe: RunningService, reason: str) -> bool:
    assert any(reason in said for said in await _readiness(probe))
    return True


async def _complains(probe: RunningService) -> bool:
    reasons: list[str] = (await probe.client.get("/health/ready")).json()["reasons"]
    return any("cannot apply" in reason for reason in reasons)


def _at(envelope: Envelope, sequence: int) -> Envelope:
    return envelope._replace(sequence=sequence, id=f"{envelope.id}-{sequence}")


async def _is(answer: Awaitable[Any], expected: Any) -> bool:
    assert await answer == expected
    return True


async def _waiting(probe: RunningService) -> int:
    count: int = await probe.admin.fetchval("select count(*) from parked_event")
    return count
