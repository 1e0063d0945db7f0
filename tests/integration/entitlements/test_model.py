"""Concurrent random commands against a model: it replays the stream of events, and must allow each of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from muster_contracts.entitlements import (
    SeatActivated,
    SeatAssigned,
    SeatBatchCompleted,
    SeatInvitationExpired,
    SeatInvited,
    SeatLimitReached,
    SeatPoolResized,
    SeatReinstated,
    SeatReserved,
    SeatRevoked,
    SeatSuspended,
    SeatTransferred,
)
from muster_contracts.event import Event
from muster_runtime.operations.rebuild import opened
from tests.integration.entitlements.conftest import START, Entitlements
from tests.support.eventually import eventually

CAP, PEOPLE, ACTORS, TURNS = 8, 14, 6, 40

SEAT_EVENTS: list[type[Event]] = [
    SeatActivated,
    SeatAssigned,
    SeatBatchCompleted,
    SeatInvitationExpired,
    SeatInvited,
    SeatLimitReached,
    SeatPoolResized,
    SeatReinstated,
    SeatReserved,
    SeatRevoked,
    SeatSuspended,
    SeatTransferred,
]


@dataclass
class Model:
    """What a subscriber makes of the stream: states and holders of the seats, the cap, and the rules that hold."""

    cap: int
    states: dict[str, str] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    limit_met: bool = False

    def apply(self, event: Any) -> None:
        match event:
            case SeatReserved():
                self._take(event, "reserved")
            case SeatAssigned() if self.states.get(event.seat_id) == "invited":
                self._turn(event, {"invited"}, "assigned")
            case SeatAssigned():
                self._take(event, "assigned")
            case SeatInvited():
                self._turn(event, {"reserved", "invited"}, "invited")
            case SeatInvitationExpired():
                self._turn(event, {"invited"}, "reserved")
            case SeatActivated():
                self._turn(event, {"assigned"}, "active")
                self.used.add(event.seat_id)
            case SeatSuspended():
                self._turn(event, {"assigned", "active"}, "suspended")
            case SeatReinstated():
                self._turn(event, {"suspended"}, "active" if event.seat_id in self.used else "assigned")
            case SeatTransferred():
                assert self.holders[event.seat_id] == event.from_subject_ref
                assert event.subject_ref not in self.holders.values()
                self.holders[event.seat_id] = event.subject_ref
                self._turn(event, {"assigned", "active"}, "assigned")
                self.used.discard(event.seat_id)
            case SeatRevoked():
                self._turn(event, {"reserved", "invited", "assigned", "active", "suspended"}, "revoked")
                del self.holders[event.seat_id]
                self.limit_met = False
            case SeatPoolResized():
                assert (event.previous_cap, event.in_use) == (self.cap, len(self.holders))
                self.limit_met = self.limit_met and event.cap == len(self.holders)
                self.cap = event.cap
            case SeatLimitReached():
                assert not self.limit_met
                assert len(self.holders) == self.cap
                self.limit_met = True
        assert len(self.holders) <= self.cap

    def _take(self, event: Any, state: str) -> None:
        assert event.seat_id not in self.states
        assert event.subject_ref not in self.holders.values()
        self.states[event.seat_id] = state
        self.holders[event.seat_id] = event.subject_ref

    def _turn(self, event: Any, before: set[str], after: str) -> None:
        assert self.states[event.seat_id] in before, event
        assert self.holders[event.seat_id] == event.subject_ref
        self.states[event.seat_id] = after


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_commands_at_once(entitlements: Entitlements, seed: int) -> None:
    chance = random.Random(seed)
    await entitlements.enroll(CAP)
    seats: list[str] = []
    statuses: set[int] = set()

    def address() -> str:
        return f"person.{chance.randrange(PEOPLE)}@nasa.gov"

    async def give() -> httpx.Response:
        state = chance.choice(["reserved", "invited", "assigned", "assigned"])
        reply = await entitlements.post("seats", {"email": address(), "state": state})
        if reply.status_code == 201:
            seats.append(reply.json()["seat_id"])
        return reply

    async def act() -> httpx.Response:
        action = chance.choice(["invitation", "activation", "suspension", "reinstatement", "revocation", "transfer"])
        body = {"email": address()} if action == "transfer" else None
        return await entitlements.post(f"seats/{chance.choice(seats)}/{action}", body)

    async def resize() -> httpx.Response:
        return await entitlements.post("pool/resize", {"cap": chance.randrange(CAP - 3, CAP + 2)})

    async def send() -> httpx.Response:
        route = chance.choice(["seat-imports", "seat-imports", "seat-suspensions", "seat-revocations"])
        body = "\n".join(["email", *(address() for _ in range(3))])
        return await entitlements.send_file(body, route, dry_run=chance.random() < 0.2)

    async def send_transfers() -> httpx.Response:
        rows = [f"{address()},{address()}" for _ in range(3)]
        return await entitlements.send_file("\n".join(["from,to", *rows]), "seat-transfers")

    async def let_time_pass() -> None:
        entitlements.service.clock.move(entitlements.service.clock.now() + timedelta(days=chance.randrange(5)))

    async def actor() -> None:
        for _ in range(TURNS):
            choice = chance.random()
            turn: Callable[[], Awaitable[httpx.Response | None]]
            if choice < 0.35 or not seats:
                turn = give
            else:
                turn = act if choice < 0.8 else send if choice < 0.88 else send_transfers if choice < 0.92 else resize
            if choice > 0.97:
                turn = let_time_pass
            reply = await turn()
            if reply is not None:
                statuses.add(reply.status_code)
                assert reply.status_code in {200, 201, 202, 408, 409}, reply.text

    assert entitlements.service.clock.now() == START
    await asyncio.gather(*(actor() for _ in range(ACTORS)))
    await eventually(lambda: _is_quiet(entitlements))

    assert statuses >= {200, 201, 202, 409}  # and 408, if days passed while a file arrived
    events = [event for cls in SEAT_EVENTS for event in await entitlements.service.published(cls)]
    events.sort(key=lambda event: event.envelope.sequence)
    assert [event.envelope.sequence for event in events] == list(range(1, len(events) + 1))
    model = Model(CAP)
    for event in events:
        model.apply(event.data)
    admin = entitlements.service.admin
    rows = await admin.fetch("select seat_id, subject_ref, state, email from seat")
    assert {row["seat_id"]: row["state"] for row in rows} == model.states
    held = [row for row in rows if row["state"] != "revoked"]
    assert {row["seat_id"]: row["subject_ref"] for row in held} == model.holders
    assert all((row["email"] is None) == (row["state"] == "revoked") for row in rows)
    [pool] = await admin.fetch("select cap, in_use, limit_met from pool")
    assert tuple(pool) == (model.cap, len(model.holders), model.limit_met)
    async with opened(entitlements.service.runtime.service, "snapshot") as snapshot:
        await snapshot.replay()
        assert await snapshot.compare() == []


async def _is_quiet(entitlements: Entitlements) -> bool:
    return bool(
        await entitlements.service.admin.fetchval(
            """
            select
                not exists (select from outbox)
                and not exists (select from operation where state = 'running')
                and not exists (select from deadline where due_at <= $1)
            """,
            entitlements.service.clock.now(),
        )
    )
