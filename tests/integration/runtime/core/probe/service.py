"""A minimal service: it stores one row for each SeatAssigned, and refuses the seat named `poison`."""

from collections.abc import Sequence
from pathlib import Path

from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import EntitlementsAuditSealed, SeatAssigned, SeatRevoked
from muster_runtime.database.schema import Schema
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.messaging.events import Received
from muster_runtime.scheduling.deadlines import Deadline
from muster_runtime.service import Service
from muster_runtime.settings import Settings

SCHEMA = Schema("probe", Path(__file__).parent / "migrations")


async def keep_seats(uow: UnitOfWork, events: Sequence[Received[SeatAssigned]]) -> None:
    for event in events:
        if event.data.seat_id == "poison":
            raise Conflict(f"the seat is poison: {event.data.subject_ref}")
    await uow.connection.execute(
        """
        insert into effect (agency_id, event_id, sequence, seat_id)
        select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        """,
        [event.envelope.agency_id for event in events],
        [event.envelope.id for event in events],
        [event.envelope.sequence for event in events],
        [event.data.seat_id for event in events],
    )


async def answer_withdrawals(uow: UnitOfWork, events: Sequence[Received[AgencyWithdrawn]]) -> None:
    for event in events:
        answer = SeatRevoked(
            agency_id=event.data.agency_id, seat_id="seat", subject_ref="sub_x", reason="agency_withdrawn"
        )
        uow.publish(answer, causation_id=event.envelope.id)


async def revoke_when_due(uow: UnitOfWork, deadlines: Sequence[Deadline]) -> None:
    for deadline in deadlines:
        if deadline.subject == "broken":
            raise Conflict("this deadline cannot be handled")
        revoked = SeatRevoked(
            agency_id=deadline.agency_id, seat_id=deadline.subject, subject_ref="sub_x", reason="requested"
        )
        uow.publish(revoked, time=deadline.due_at)


def build(settings: Settings | None = None) -> Service:
    return Service(
        schema=SCHEMA,
        settings=settings or Settings(),
        produces=["muster.entitlements.seat", "muster.entitlements.directory"],
        subscriptions={SeatAssigned: keep_seats},
        deadlines={"revoke": revoke_when_due, "erase": revoke_when_due},
        required_deadlines=["erase"],
    )


def build_answering(settings: Settings) -> Service:
    """The probe as a service that answers another service's event with one of its own."""
    return Service(
        schema=SCHEMA,
        settings=settings,
        produces=["muster.entitlements.seat"],
        subscriptions={AgencyWithdrawn: answer_withdrawals},
    )


def build_sealing(settings: Settings) -> Service:
    """The probe as a service that seals its audit, and does nothing else."""
    return Service(
        schema=SCHEMA,
        settings=settings,
        produces=[EntitlementsAuditSealed.topic],
        audit_sealed=EntitlementsAuditSealed,
    )
