"""An operator's commands: list streams, accept a gap, raise the epoch, reread topics, replay many records."""

from typing import Any

import pytest

from muster_contracts import Envelope, topics
from muster_contracts.entitlements import SeatAssigned
from muster_runtime.process.roles import Role
from muster_runtime.settings import Settings
from tests.integration.runtime.core.conftest import discard
from tests.integration.runtime.core.probe.service import build
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

TOPIC = "muster.entitlements.seat"
WHY = {"reason": "the backup of Monday lacks them"}
GAP = WHY | {"waiting": 7}


def seat(agency_id: str, seat_id: str) -> SeatAssigned:
    return SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref="sub_1")


async def publish_from_the_service(probe: RunningService, *agencies: str) -> None:
    async with probe.runtime.database.write(*agencies, context=CONTEXT) as uow:
        for agency_id in agencies:
            uow.publish(seat(agency_id, "made here"))


async def streams(probe: RunningService, **query: str) -> list[dict[str, Any]]:
    reply = await probe.client.get("/v1/streams", params=query)
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


async def parked_for_a_gap(probe: RunningService, missing: int = 5) -> Envelope:
    (first,) = await probe.publish(seat("NASA", "a"))
    late = first._replace(sequence=2 + missing, id=f"{first.id}-late")
    await probe.producer.put(late, seat("NASA", "b"))
    await eventually(lambda: parked_reason(probe))
    return late


async def parked_reason(probe: RunningService) -> str | None:
    reason: str | None = await probe.admin.fetchval("select reason from parked_stream")
    return reason


async def seats(probe: RunningService, agency_id: str) -> list[str]:
    rows = await probe.admin.fetch("select seat_id from effect where agency_id = $1 order by id", agency_id)
    return [row["seat_id"] for row in rows]


async def test_streams_show_what_was_produced_and_what_was_applied(
    idle_probe: RunningService, run_service: ServiceRunner
) -> None:
    await publish_from_the_service(idle_probe, "DOE", "NASA")
    assert await streams(idle_probe) == [
        {
            "topic": TOPIC,
            "agency_id": agency_id,
            "produced": {"epoch": 1, "sequence": 1},
            "applied": None,
            "parked": None,
        }
        for agency_id in ("DOE", "NASA")
    ]
    await run_service(build, Settings, beside=idle_probe)
    await eventually(lambda: applied_everywhere(idle_probe))
    (nasa,) = await streams(idle_probe, agency_id="NASA", topic=TOPIC)
    assert nasa["applied"] == nasa["produced"] == {"epoch": 1, "sequence": 1}
    page = (await idle_probe.client.get("/v1/streams", params={"limit": 1})).json()
    rest = (await idle_probe.client.get("/v1/streams", params={"limit": 1, "after": page["next"]})).json()
    assert [page["items"][0]["agency_id"], rest["items"][0]["agency_id"]] == ["DOE", "NASA"]
    assert rest["next"] is None


async def applied_everywhere(probe: RunningService) -> bool:
    assert all(stream["applied"] for stream in await streams(probe))
    return True


async def test_an_accepted_gap_lets_the_stream_go_on_and_is_audited(probe: RunningService) -> None:
    await parked_for_a_gap(probe)
    reply = await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=GAP)
    assert reply.status_code == 200, reply.text
    assert reply.json()["applied"] == {"epoch": 1, "sequence": 6}
    replayed = (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json()
    assert replayed == {"parked": False, "reason": None}
    assert await seats(probe, "NASA") == ["a", "b"]
    row = await probe.admin.fetchrow("select actor, reason, before, after from audit where command = 'AcceptGap'")
    assert tuple(row or ()) == ("operator", WHY["reason"], '{"position": [1, 1]}', '{"position": [1, 6]}')


async def test_an_accepted_gap_that_is_sent_twice_accepts_no_later_one(probe: RunningService) -> None:
    late = await parked_for_a_gap(probe)
    await probe.producer.put(late._replace(sequence=20, id=f"{late.id}-later"), seat("NASA", "c"))
    await eventually(lambda: waiting(probe, 2))
    path = f"/v1/parked/{TOPIC}/NASA"
    shown = (await probe.client.get(path)).json()["first_records"]
    assert [record["sequence"] for record in shown] == [7, 20]
    gap = f"/v1/streams/{TOPIC}/NASA/gap"
    assert (await probe.client.post(gap, json=GAP)).status_code == 200
    assert (await probe.client.post(f"{path}/replay")).json()["parked"]
    again = await probe.client.post(gap, json=GAP)
    assert (again.status_code, "the first waiting sequence is 20, not 7" in again.json()["detail"]) == (409, True)
    assert await seats(probe, "NASA") == ["a", "b"]
    assert (await probe.client.post(gap, json=GAP | {"waiting": 20})).status_code == 200
    assert (await probe.client.post(f"{path}/replay")).json() == {"parked": False, "reason": None}
    assert await seats(probe, "NASA") == ["a", "b", "c"]


async def test_a_discard_that_is_sent_twice_gives_up_one_record(probe: RunningService) -> None:
    await probe.publish(seat("NASA", "poison"), seat("NASA", "good"))
    await eventually(lambda: waiting(probe, 2))
    path = f"/v1/parked/{TOPIC}/NASA"
    poison, good = (await probe.client.get(path)).json()["first_records"]
    body = {"records": [{name: poison[name] for name in ("partition", "offset")}], "reason": "a mistake"}
    key = {"Idempotency-Key": "discard-1"}
    for replayed in (None, "true"):
        reply = await probe.client.post(f"{path}/discard", json=body, headers=key)
        assert (reply.status_code, reply.json()) == (200, {"left": 1}), reply.text
        assert reply.headers.get("idempotency-replayed") == replayed
    other = body | {"reason": "another"}
    assert (await probe.client.post(f"{path}/discard", json=other, headers=key)).status_code == 422
    again = await probe.client.post(f"{path}/discard", json=body)
    assert again.status_code == 409
    assert f"{good['partition']}@{good['offset']}" in again.json()["detail"]
    assert (await probe.client.post(f"{path}/discard", json={"reason": "the first one"})).status_code == 422
    assert (await probe.client.post(f"{path}/replay")).json() == {"parked": False, "reason": None}
    assert await seats(probe, "NASA") == ["good"]
    assert (await probe.client.post(f"{path}/discard", json=body)).status_code == 404
    assert await probe.admin.fetchval("select count(*) from audit where command = 'DiscardParkedRecord'") == 1
    beyond = {"records": [{"partition": 2**40, "offset": 10**30}], "reason": "a mistake"}
    assert (await probe.client.post(f"{path}/discard", json=beyond)).status_code == 422


async def test_an_operators_command_under_a_key_is_carried_out_once(
    probe: RunningService, run_service: ServiceRunner
) -> None:
    await parked_for_a_gap(probe)
    consumer = probe.process.consumer
    assert consumer is not None
    await consumer.stop()  # otherwise the group refuses to be rewound
    commands = {f"/v1/streams/{TOPIC}/NASA/gap": GAP, "/v1/epoch": WHY, "/v1/rewind": WHY}
    for path, body in commands.items():
        replies = [
            await probe.client.post(path, json=body, headers={"Idempotency-Key": f"key of {path}"}) for _ in range(2)
        ]
        assert [reply.status_code for reply in replies] == [200, 200], replies[0].text
        assert replies[0].json() == replies[1].json()
        assert replies[1].headers["idempotency-replayed"] == "true"
    audited = await probe.admin.fetch("select command from audit order by id")
    assert [row["command"] for row in audited] == ["AcceptGap", "RaiseEpoch", "RewindConsumer"]
    assert await probe.admin.fetchval("select number from epoch") == 2


async def test_only_a_gap_can_be_accepted(probe: RunningService) -> None:
    gap = WHY | {"waiting": 1}
    nothing = await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=gap)
    assert nothing.status_code == 404
    await probe.publish(seat("NASA", "poison"))
    await eventually(lambda: parked_reason(probe))
    refused = await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=gap)
    assert refused.status_code == 409
    assert "no gap" in refused.json()["detail"]
    assert (await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=WHY)).status_code == 422
    assert await probe.admin.fetchval("select count(*) from audit") == 0


async def test_discarding_a_record_does_not_accept_the_gap_before_it(probe: RunningService) -> None:
    late = await parked_for_a_gap(probe)
    await probe.producer.put(late._replace(sequence=8, id=f"{late.id}-8"), seat("NASA", "c"))
    await eventually(lambda: waiting(probe, 2))
    await discard(probe, "NASA")
    replayed = (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json()
    assert "sequence 2 was expected, but 8 arrived" in replayed["reason"]
    audited = await probe.admin.fetchval("select after from audit where command = 'DiscardParkedRecord'")
    assert f'"event_id": "{late.id}"' in audited


async def test_a_raised_epoch_holds_for_every_stream_old_and_new(idle_probe: RunningService) -> None:
    await publish_from_the_service(idle_probe, "DOE", "NASA")
    reply = await idle_probe.client.post("/v1/epoch", json={**WHY, "above": 4})
    assert reply.json() == {"epoch": 5, "streams": 2, "deadlines_held": True}
    await publish_from_the_service(idle_probe, "NASA", "EPA")
    assert {(s["agency_id"], s["produced"]["epoch"], s["produced"]["sequence"]) for s in await streams(idle_probe)} == {
        ("DOE", 5, 1),
        ("EPA", 5, 1),
        ("NASA", 5, 2),
    }
    again = await idle_probe.client.post("/v1/epoch", json=WHY)
    assert again.json() == {"epoch": 6, "streams": 3, "deadlines_held": True}
    audited = await idle_probe.admin.fetch("select agency_id, reason from audit where command = 'RaiseEpoch'")
    assert [tuple(row) for row in audited] == [("*", WHY["reason"])] * 2


async def test_an_operators_commands_refuse_one_agencys_token(probe: RunningService) -> None:
    header = {"Authorization": f"Bearer {probe.token('probe:operate', agency='NASA')}"}
    commands = (f"/v1/streams/{TOPIC}/NASA/gap", "/v1/epoch", "/v1/rewind")
    for method, path in (("GET", "/v1/streams"), *(("POST", command) for command in commands)):
        body = None if method == "GET" else WHY
        assert (await probe.client.request(method, path, json=body, headers=header)).status_code == 403, path


async def test_a_replay_applies_all_before_the_culprit_and_stops_there(probe: RunningService) -> None:
    late = await parked_for_a_gap(probe, missing=1)
    for number, name in ((4, "c"), (5, "poison"), (6, "d")):
        await probe.producer.put(late._replace(sequence=number, id=f"{late.id}-{number}"), seat("NASA", name))
    await eventually(lambda: waiting(probe, 4))
    await probe.client.post(f"/v1/streams/{TOPIC}/NASA/gap", json=WHY | {"waiting": 3})
    replayed = (await probe.client.post(f"/v1/parked/{TOPIC}/NASA/replay")).json()
    assert replayed["parked"]
    assert "poison" in replayed["reason"]
    assert await seats(probe, "NASA") == ["a", "b", "c"]
    (left,) = (await probe.client.get("/v1/parked")).json()["items"]
    assert left["records"] == 2


async def waiting(probe: RunningService, count: int) -> bool:
    assert await probe.admin.fetchval("select records from parked_stream") == count
    assert await probe.admin.fetchval("select count(*) from parked_event") == count
    return True


@pytest.mark.parametrize("agencies", [["NASA"], ["DOE", "NASA"]])
async def test_the_maintenance_role_serves_operators_alone(run_service: ServiceRunner, agencies: list[str]) -> None:
    """Nothing is relayed or applied while the epoch is raised."""
    probe = await run_service(build, Settings, roles=frozenset({Role.OPERATIONS}))
    await publish_from_the_service(probe, *agencies)
    assert (await probe.client.post("/v1/epoch", json=WHY)).json()["streams"] == len(agencies)
    assert await probe.admin.fetchval("select count(*) from outbox") == len(agencies)
    assert await probe.published(SeatAssigned) == []
    assert TOPIC in topics()
