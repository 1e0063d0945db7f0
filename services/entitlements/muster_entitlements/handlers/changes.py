"""A chunk of a file whose people's seats are suspended, revoked or given to others."""

from collections.abc import Iterable
from dataclasses import replace

from muster_contracts.entitlements import PersonErased, SeatBatchKind, SeatRevocationReason, SeatRevoked
from muster_entitlements import publishing
from muster_entitlements.domain import ASSIGNABLE, Pool, Seat, SeatAction, SeatState
from muster_entitlements.errors import SeatAlreadyHeld
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.handlers.report import MISSHAPEN, Report, Row, refuse_all, rule_of
from muster_entitlements.handlers.seats import known_pool
from muster_entitlements.people import Directory, Person
from muster_entitlements.repository import dry_runs, pools, seats
from muster_entitlements.repository.operations import Operation
from muster_entitlements.seat_file import Columns
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.pacing import Pace

UNCHANGED = "unchanged"
NO_SEAT = "no-seat"

# A seat as it was before, and the person who holds it after; None where that is not another one.
_Change = tuple[Seat, Person | None]

_ACTION = {
    SeatBatchKind.SUSPENSION: SeatAction.SUSPEND,
    SeatBatchKind.REVOCATION: SeatAction.REVOKE,
    SeatBatchKind.TRANSFER: SeatAction.TRANSFER,
}

# The reason that a file's suspensions give to the public.
_SUSPENDED_FOR = "requested"


async def change_rows(uow: UnitOfWork, operation: Operation, rows: Iterable[Row], directory: Directory) -> Report:
    """Do to each person's seat what the file asks for, in the rows' order; a bad row is refused, the others go on."""
    pool = await known_pool(uow, operation.agency_id)
    if operation.kind is SeatBatchKind.TRANSFER and pool.state(uow.now) not in ASSIGNABLE:
        return refuse_all(rows, pool.state(uow.now).value)
    assert operation.columns is not None  # every operation that runs was received
    read = []
    pace = Pace()
    for line, fields in rows:
        read.append((line, _read(fields, operation, operation.columns, directory)))
        await pace.keep()
    held = await _held(uow, operation, [wish for _, wish in read if not isinstance(wish, str)])
    report, changes = _decide(read, held, _ACTION[operation.kind])
    if operation.dry_run:
        await _suppose(uow, operation, changes, held)
    elif changes:
        await _apply(uow, operation.kind, pool, changes)
    return report


def _read(
    fields: list[str] | None, operation: Operation, columns: Columns, directory: Directory
) -> tuple[str, Person | None] | str:
    """Whose seat, and for whom; or why the row is refused."""
    if fields is None:
        return MISSHAPEN
    try:
        subject = directory.subject_ref(operation.agency_id, fields[columns.key])
        if columns.to is None:
            return subject, None
        name = fields[columns.name] if columns.name is not None else None
        return subject, directory.person(operation.agency_id, fields[columns.to], name)
    except InvalidInput as refusal:
        return rule_of(refusal)


async def _held(uow: UnitOfWork, operation: Operation, wishes: list[tuple[str, Person | None]]) -> dict[str, Seat]:
    """The seats of all whom the rows name; in a dry run, as it has changed them so far in its own eyes."""
    subjects = {subject for subject, _ in wishes} | {person.subject_ref for _, person in wishes if person}
    held = await seats.find_held(uow.connection, operation.agency_id, list(subjects))
    if operation.dry_run:
        supposed = await dry_runs.find_supposed(uow.connection, operation, list(subjects))
        for subject, (seat_id, state) in supposed.items():
            held[subject] = Seat(operation.agency_id, seat_id, subject, state, used=False)
    return {subject: seat for subject, seat in held.items() if seat.state is not SeatState.REVOKED}


def _decide(
    read: list[tuple[int, tuple[str, Person | None] | str]], held: dict[str, Seat], action: SeatAction
) -> tuple[Report, list[_Change]]:
    """What becomes of each row; `held` is brought up to it."""
    report, changes = Report(), []
    for line, wish in read:
        if isinstance(wish, str):
            report.refuse(line, "", wish)
            continue
        subject, person = wish
        seat = held.get(subject)
        state = seat.after(action) if seat else None
        if seat is None:
            report.refuse(line, subject, NO_SEAT)
        elif state is None:
            report.refuse(line, subject, f"the seat is {seat.state}")
        elif (state is seat.state and person is None) or (person and person.subject_ref == subject):
            report.leave(line, subject, UNCHANGED)
        elif person and person.subject_ref in held:
            report.refuse(line, subject, SeatAlreadyHeld.slug)
        else:
            del held[subject]
            if state is not SeatState.REVOKED:
                holder = person.subject_ref if person else subject
                held[holder] = replace(seat, subject_ref=holder, state=state)
            changes.append((seat, person))
            report.add(line, subject, action.value)
    return report, changes


async def _suppose(uow: UnitOfWork, operation: Operation, changes: list[_Change], held: dict[str, Seat]) -> None:
    touched = {seat.subject_ref for seat, _ in changes} | {person.subject_ref for _, person in changes if person}
    gone = ("", SeatState.REVOKED)
    await dry_runs.mark(
        uow.connection,
        operation,
        {subject: (held[subject].seat_id, held[subject].state) if subject in held else gone for subject in touched},
    )


async def _apply(uow: UnitOfWork, kind: SeatBatchKind, pool: Pool, changes: list[_Change]) -> None:
    agency_id = pool.agency_id
    seat_ids = [seat.seat_id for seat, _ in changes]
    match kind:
        case SeatBatchKind.SUSPENSION:
            await seats.suspend(uow.connection, agency_id, seat_ids)
            await pools.touch_pool(uow.connection, agency_id)
            for seat, _ in changes:
                uow.publish(publishing.seat_suspended(seat, _SUSPENDED_FOR))
        case SeatBatchKind.REVOCATION:
            await seats.revoke(uow.connection, agency_id, seat_ids, uow.now)
            await writes.execute(uow.connection, pools.use_seats(agency_id, -len(changes), limit_met=False))
            revoked = [(seat.seat_id, seat.subject_ref) for seat, _ in changes]
            payloads = publishing.seats_revoked(agency_id, revoked, SeatRevocationReason.REQUESTED)
            uow.publish_encoded(SeatRevoked, agency_id, payloads)
            uow.publish_erased(PersonErased, agency_id, [subject_ref for _, subject_ref in revoked])
        case _:
            await _transfer(uow, pool, [(seat, person) for seat, person in changes if person is not None])


async def _transfer(uow: UnitOfWork, pool: Pool, transfers: list[tuple[Seat, Person]]) -> None:
    agency_id = pool.agency_id
    await revoke_earlier(uow, pool, [person.subject_ref for _, person in transfers])
    given = [(seat.seat_id, person) for seat, person in transfers]
    await seats.transfer(uow.connection, agency_id, given, uow.now)
    await pools.touch_pool(uow.connection, agency_id)
    for seat, person in transfers:
        uow.publish(publishing.seat_transferred(seat, person.subject_ref))
    # One after the other: who gives a seat away may be given another by a later row.
    for seat, person in transfers:
        uow.publish(publishing.person_erased(seat))
        uow.publish(publishing.person_recorded(agency_id, person))
