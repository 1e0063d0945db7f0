"""A stream parks with the first record that is refused or cannot be read, until an operator acts."""

from typing import Any

import pytest

from muster_contracts import Position, write_headers
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.errors import Conflict
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.parking import ParkingLimits, StreamFull, Waiting, park
from muster_runtime.messaging.subscriptions import Subscriptions
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.looks import seat
from tests.integration.runtime.core.probe.service import keep_seats
from tests.integration.runtime.core.streams import TOPIC, at, consumed, effects, holds, parked, waiting
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.limits import LIMITS
from tests.support.services import RunningService


async def test_poison_parks_its_stream_in_order_and_replay_applies_it(probe: RunningService) -> None:
    await probe.publish(seat("NASA", "a"), seat("NASA", "poison"), seat("NASA", "b"), seat("DOE", "other"))
    await eventually(lambda: holds(effects(probe, "DOE"), ["other"]))
    assert "poison" in await eventually(lambda: parked(probe, "NASA"))
    await probe.publish(seat("NASA", "c"))
    await eventually(lambda: holds(waiting(probe), 3))
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
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b", "c", "d"]))
    audited = await probe.admin.fetch("select command, reason from audit order by id")
    assert [tuple(row) for row in audited] == [
        ("DiscardParkedRecord", "entered by mistake"),
        ("ReplayParkedStream", None),
    ]
    assert (await probe.client.get(f"/v1/parked/{TOPIC}/NASA")).status_code == 404


@pytest.mark.parametrize("content", ["b", "poison"])
async def test_a_record_waits_while_one_of_an_earlier_topic_is_parked_at_its_position(
    probe: RunningService, content: str
) -> None:
    """Also one with the same content, of another agency."""
    await probe.publish(seat("NASA", "poison"))
    assert await eventually(lambda: parked(probe, "NASA"))
    await probe.admin.execute("update parked_event set agency_id = 'DOE', kafka_offset = kafka_offset + 1")
    await probe.publish(seat("NASA", content))

    async def waits() -> bool:
        reasons = (await probe.client.get("/health/ready")).json()["reasons"]
        return any("has another record at" in reason for reason in reasons)

    await eventually(waits)
    await probe.admin.execute("delete from parked_event")
    await eventually(lambda: holds(waiting(probe), 1))


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
async def test_what_cannot_be_read_is_parked_raw(probe: RunningService, change: dict[str, Any], reason: str) -> None:
    (first,) = await probe.publish(seat("NASA", "a"))
    headers = dict(write_headers(at(first, 2)))
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
    await eventually(lambda: holds(effects(probe, "DOE"), ["other"]))


async def test_a_parked_stream_keeps_its_first_reason(idle_probe: RunningService) -> None:
    """Another process has parked it meanwhile; only the reason of a gap gives way."""
    now = idle_probe.clock.now()
    reasons = []
    for sequence, (reason, gap) in enumerate([("a gap", True), ("the first", False), ("a second", False)], start=1):
        record = Waiting(consumed(seat("NASA", "a"), sequence, now), Position(1, sequence))
        async with idle_probe.runtime.database.write("NASA", context=CONTEXT) as uow:
            await park(uow, "probe", [record], reason, LIMITS, gap=gap)
        reasons.append(await parked(idle_probe, "NASA"))
    assert reasons == ["a gap", "the first", "the first"]


async def test_what_another_process_has_applied_meanwhile_does_not_park(idle_probe: RunningService) -> None:
    runtime = idle_probe.runtime
    subscriptions = Subscriptions({SeatAssigned: keep_seats}, service="probe", group="probe", clock=runtime.clock)
    applier = Applier(runtime.database, subscriptions, LIMITS)
    records = [consumed(seat("NASA", name), number, runtime.clock.now()) for number, name in enumerate("ab", start=1)]
    await applier.apply(records[:1])
    await applier._park((TOPIC, "NASA"), await subscriptions.read(records), Conflict("refused"))
    assert await idle_probe.admin.fetchval("select array_agg(sequence) from parked_event") == [2]


async def test_a_full_stream_continues_once_a_tenth_of_its_room_is_free(idle_probe: RunningService) -> None:
    runtime, full = idle_probe.runtime, StreamFull(TOPIC, "NASA", "it is full")
    subscriptions = Subscriptions({}, service="probe", group="probe", clock=runtime.clock)
    applier = Applier(runtime.database, subscriptions, ParkingLimits(records=20, streams=50))
    await idle_probe.admin.execute(
        """
        insert into parked_stream (consumer_group, topic, agency_id, parked_at, reason)
        values ('probe', $1, 'NASA', now(), 'a defect')
        """,
        TOPIC,
    )
    goes_on = []
    for records in (20, 19, 18):
        await idle_probe.admin.execute("update parked_stream set records = $1", records)
        goes_on.append(await applier.may_go_on(full))
    assert goes_on == [False, False, True]


async def test_parked_streams_come_in_pages(probe: RunningService) -> None:
    await probe.publish(seat("NASA", "poison"), seat("DOE", "poison"))
    await eventually(lambda: holds(waiting(probe), 2))
    first = (await probe.client.get("/v1/parked?limit=1")).json()
    rest = (await probe.client.get(f"/v1/parked?limit=1&after={first['next']}")).json()
    assert [[stream["agency_id"] for stream in page["items"]] for page in (first, rest)] == [["DOE"], ["NASA"]]
    assert rest["next"] is None


async def test_a_parked_stream_is_found_by_its_topic_and_agency(probe: RunningService) -> None:
    await probe.publish(seat("NASA", "poison"), seat("DOE", "poison"))
    await eventually(lambda: holds(waiting(probe), 2))
    for stream in (await probe.client.get("/v1/parked")).json()["items"]:
        shown = (await probe.client.get(f"/v1/parked/{TOPIC}/{stream['agency_id']}")).json()
        assert stream.items() <= shown.items()

    for topic, agency_id in ((TOPIC, "EPA"), ("muster.enrollment.agency", "NASA")):
        stream, why = f"{topic}/{agency_id}", {"reason": "entered by mistake"}
        replies = [
            await probe.client.get(f"/v1/parked/{stream}"),
            await probe.client.post(f"/v1/parked/{stream}/replay"),
            await probe.client.post(
                f"/v1/parked/{stream}/discard", json={"records": [{"partition": 0, "offset": 0}], **why}
            ),
            await probe.client.post(f"/v1/streams/{stream}/gap", json={"waiting": 2, **why}),
        ]
        found = {(reply.status_code, reply.json()["detail"]) for reply in replies}
        assert found == {(404, f"no stream of '{agency_id}' on topic '{topic}' is parked")}


async def test_a_discarded_record_of_a_newer_major_does_not_park_when_it_is_read_again(probe: RunningService) -> None:
    """As after a rewind: the position is known, whatever the record holds."""
    (first,) = await probe.publish(seat("NASA", "a"))
    newer = at(first, 2)._replace(type="muster.entitlements.SeatAssigned.v2")
    await probe.producer.put(newer, seat("NASA", "new"))
    assert "unknown major" in await eventually(lambda: parked(probe, "NASA"))
    assert (await discard(probe, "NASA")).json() == {"left": 0}
    await probe.producer.put(newer, seat("NASA", "new"))
    await probe.producer.put(at(first, 3), seat("NASA", "b"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a", "b"]))
    assert await parked(probe, "NASA") is None


async def test_a_record_without_a_key_parks_alone(probe: RunningService) -> None:
    await probe.producer.put_raw(TOPIC, key=None, value=b"{}", headers=[])
    await probe.publish(seat("NASA", "a"))
    await eventually(lambda: holds(effects(probe, "NASA"), ["a"]))
    assert await eventually(lambda: parked(probe, "?"))


async def test_parked_streams_are_not_for_one_agencys_token(probe: RunningService) -> None:
    token = probe.token("probe:operate", agency="NASA")
    reply = await probe.client.get("/v1/parked", headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 403
