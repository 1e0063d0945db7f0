"""The probe: a command assigns seats, the event of each has an effect and an answer, and an expiry has its instant."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Response
from pydantic import BaseModel

from muster_contracts import AgencyId
from muster_contracts.enrollment import AgencyReinstated
from muster_contracts.entitlements import PersonRecorded, SeatAssigned
from muster_runtime.database.schema import Schema
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.http.application import CommandsDep, RequestBody, requires
from muster_runtime.messaging.events import Received
from muster_runtime.scheduling.deadlines import Deadline, schedule
from muster_runtime.service import Service
from muster_runtime.settings import Settings

# The facts, and the consumer's answers to them: any two events would do.
TOPIC = SeatAssigned.topic
ANSWERS = AgencyReinstated.topic

# A compacted one, which the tests themselves write to.
DIRECTORY = PersonRecorded.topic

SCHEMA = Schema("probe", Path(__file__).parent / "migrations")

router = APIRouter(prefix="/v1/agencies/{agency_id}", dependencies=[requires("probe:write")])


class SeatsRequest(RequestBody):
    """The seats to assign, by ids that the caller chooses."""

    seat_ids: tuple[str, ...]


class SeatsReply(BaseModel):
    """The numbers of the first and the last seat."""

    first: int
    last: int


class ExpiryRequest(RequestBody):
    """What expires, and when."""

    subject: str
    due_at: datetime


@router.post("/seats", status_code=201, response_model=SeatsReply)
async def post_seats(agency_id: AgencyId, body: SeatsRequest, commands: CommandsDep) -> Response:
    handler = partial(assign_seats, agency_id=agency_id, seat_ids=body.seat_ids)
    return await commands.execute(agency_id, handler, status_code=201)


@router.post("/expiries", status_code=201, response_model=ExpiryRequest)
async def post_expiry(agency_id: AgencyId, body: ExpiryRequest, commands: CommandsDep) -> Response:
    async def handler(uow: UnitOfWork) -> ExpiryRequest:
        schedule(uow, [Deadline("expiry", agency_id, body.subject, body.due_at)])
        return body

    return await commands.execute(agency_id, handler, status_code=201)


async def assign_seats(uow: UnitOfWork, agency_id: str, seat_ids: Sequence[str]) -> SeatsReply:
    """Read the tally, then write it: without the agency's lock, two commands would read the same one."""
    seats: int = await uow.connection.fetchval("select seats from tally where agency_id = $1", agency_id) or 0
    numbers = range(seats + 1, seats + len(seat_ids) + 1)
    await uow.connection.execute(
        "insert into seat (agency_id, seat_id, number) select $1, * from unnest($2::text[], $3::bigint[])",
        agency_id,
        seat_ids,
        numbers,
    )
    await uow.connection.execute(
        """
        insert into tally (agency_id, seats)
        values ($1, $2)
        on conflict (agency_id) do update set seats = excluded.seats
        """,
        agency_id,
        numbers[-1],
    )
    for number, seat_id in zip(numbers, seat_ids, strict=True):
        uow.publish(SeatAssigned(agency_id=agency_id, seat_id=seat_id, subject_ref=f"sub_{number}"))
    return SeatsReply(first=numbers[0], last=numbers[-1])


async def keep_effects(uow: UnitOfWork, events: Sequence[Received[SeatAssigned]]) -> None:
    """Record each seat, and answer it with its own event."""
    await _meet_trouble(uow, events)
    await uow.connection.execute(
        """
        insert into effect (agency_id, epoch, sequence, seat_id)
        select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[])
        """,
        [event.envelope.agency_id for event in events],
        [event.envelope.epoch for event in events],
        [event.envelope.sequence for event in events],
        [event.data.seat_id for event in events],
    )
    for event in events:
        answer = AgencyReinstated(
            agency_id=event.data.agency_id, enrollment_id=event.data.seat_id, reinstated_at=event.envelope.time
        )
        uow.publish(answer, causation_id=event.envelope.id)


async def _meet_trouble(uow: UnitOfWork, events: Sequence[Received[SeatAssigned]]) -> None:
    rows = await uow.connection.fetch(
        """
        select seat_id, seconds
        from trouble
        where (agency_id, seat_id) in (select * from unnest($1::text[], $2::text[]))
        """,
        [event.data.agency_id for event in events],
        [event.data.seat_id for event in events],
    )
    for row in rows:
        if row["seconds"] is None:
            raise Conflict(f"the seat {row['seat_id']} is refused")
        await uow.connection.execute("select pg_sleep($1)", row["seconds"])


async def expire(uow: UnitOfWork, deadlines: Sequence[Deadline]) -> None:
    """Record each expiry with its instant."""
    await uow.connection.executemany(
        "insert into expiry (agency_id, subject, due_at) values ($1, $2, $3)",
        [(deadline.agency_id, deadline.subject, deadline.due_at) for deadline in deadlines],
    )


def build(settings: Settings | None = None) -> Service:
    """The probe; None reads the environment."""
    return Service(
        schema=SCHEMA,
        settings=settings or Settings(),
        routers=[router],
        produces=[TOPIC, ANSWERS, DIRECTORY],
        subscriptions={SeatAssigned: keep_effects},
        deadlines={"expiry": expire},
    )
