"""Processes the chunks of files that suspend, revoke, or transfer seats."""

from collections.abc import Iterable
from dataclasses import replace

from muster_contracts.entitlements import PersonErased, SeatBatchKind, SeatRevocationReason, SeatRevoked
from muster_entitlements import publishing
from muster_entitlements.domain.operations import Operation
from muster_entitlements.domain.people import Directory, Person
from muster_entitlements.domain.pools import ASSIGNABLE, Pool
from muster_entitlements.domain.row_results import MISSHAPEN, Report, Row, refuse_all, rule_of
from muster_entitlements.domain.seat_file import Columns
from muster_entitlements.domain.seats import Seat, SeatAction, SeatState
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.seat_trials import begin_seat_trials
from muster_entitlements.handlers.snapshots import erase_seats, publish_subjects
from muster_entitlements.repository import dry_runs, pools, seat_trials, seats
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.pacing import Pace

UNCHANGED = "unchanged"
NO_SEAT = "the person has no seat"
NEW_HOLDER_HAS_SEAT = "the person who is to get the seat has one"

# A seat before the change, and the person who holds it after a transfer; None if the person stays.
_Change = tuple[Seat, Person | None]

_ACTION = {
    SeatBatchKind.SUSPENSION: SeatAction.SUSPEND,
    SeatBatchKind.REVOCATION: SeatAction.REVOKE,
    SeatBatchKind.TRANSFER: SeatAction.TRANSFER,
}

# The public reason for suspensions by file.
_SUSPENDED_FOR = "requested"


async def change_rows(uow: UnitOfWork, operation: Operation, rows: Iterable[Row], directory: Directory) -> Report:
    """Change each person's seat as the file requests, in order; an invalid row does not stop the others."""
    pool = await known_pool(uow, operation.agency_id)
    if operation.kind is SeatBatchKind.TRANSFER and pool.state(uow.now) not in ASSIGNABLE:
        return refuse_all(rows, f"the seat pool is {pool.state(uow.now)}")
    assert operation.columns is not None  # every running operation was received
    read = []
    pace = Pace()
    for line, fields in rows:
        read.append((line, _read(fields, operation, operation.columns, directory)))
        await pace.keep()
    held = await _held(uow, operation, [request for _, request in read if not isinstance(request, str)])
    report, changes = _decide(read, held, _ACTION[operation.kind])
    if operation.dry_run:
        await _simulate(uow, operation, changes, held)
    elif changes:
        await _apply(uow, operation.kind, pool, changes)
    return report


def _read(
    fields: list[str] | None, operation: Operation, columns: Columns, directory: Directory
) -> tuple[str, Person | None] | str:
    """The holder of the seat, and the person who gets it; or the reason to refuse the row."""
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


async def _held(uow: UnitOfWork, operation: Operation, requests: list[tuple[str, Person | None]]) -> dict[str, Seat]:
    """The seats of all people in the rows; in a dry run, with the changes that it has simulated so far."""
    subjects = {subject for subject, _ in requests} | {person.subject_ref for _, person in requests if person}
    held = await seats.find_held(uow.connection, operation.agency_id, list(subjects))
    if operation.dry_run:
        simulated = await dry_runs.find_simulated(uow.connection, operation, list(subjects))
        for subject, (seat_id, state) in simulated.items():
            held[subject] = Seat(operation.agency_id, seat_id, subject, state, used=False)
    return {subject: seat for subject, seat in held.items() if seat.state is not SeatState.REVOKED}


def _decide(
    read: list[tuple[int, tuple[str, Person | None] | str]], held: dict[str, Seat], action: SeatAction
) -> tuple[Report, list[_Change]]:
    """The result of each row, and the changes to make; updates `held`."""
    report, changes = Report(), []
    for line, request in read:
        if isinstance(request, str):
            report.refuse(line, "", request)
            continue
        subject, person = request
        seat = held.get(subject)
        state = seat.after(action) if seat else None
        if seat is None:
            report.refuse(line, subject, NO_SEAT)
        elif state is None:
            report.refuse(line, subject, f"the seat is {seat.state}")
        elif (state is seat.state and person is None) or (person and person.subject_ref == subject):
            report.keep(line, subject, UNCHANGED)
        elif person and person.subject_ref in held:
            report.refuse(line, subject, NEW_HOLDER_HAS_SEAT)
        else:
            del held[subject]
            if state is not SeatState.REVOKED:
                holder = person.subject_ref if person else subject
                held[holder] = replace(seat, subject_ref=holder, state=state)
            changes.append((seat, person))
            report.add(line, subject, action.value)
    return report, changes


async def _simulate(uow: UnitOfWork, operation: Operation, changes: list[_Change], held: dict[str, Seat]) -> None:
    touched = {seat.subject_ref for seat, _ in changes} | {person.subject_ref for _, person in changes if person}
    gone = ("", SeatState.REVOKED)
    await dry_runs.save_simulated(
        uow.connection,
        operation,
        {subject: (held[subject].seat_id, held[subject].state) if subject in held else gone for subject in touched},
    )


async def _apply(uow: UnitOfWork, kind: SeatBatchKind, pool: Pool, changes: list[_Change]) -> None:
    agency_id = pool.agency_id
    seat_ids = [seat.seat_id for seat, _ in changes]
    match kind:
        case SeatBatchKind.SUSPENSION:
            await seats.save_suspended(uow.connection, agency_id, seat_ids, _SUSPENDED_FOR)
            await pools.save_revision(uow.connection, agency_id)
            for seat, _ in changes:
                uow.publish(publishing.seat_suspended(seat, _SUSPENDED_FOR))
            await publish_subjects(uow, agency_id, [seat.subject_ref for seat, _ in changes])
        case SeatBatchKind.REVOCATION:
            await seats.save_revoked(uow.connection, agency_id, seat_ids, SeatRevocationReason.REQUESTED, uow.now)
            await writes.execute(uow.connection, pools.save_seats_in_use(agency_id, -len(changes), limit_met=False))
            revoked = [(seat.seat_id, seat.subject_ref) for seat, _ in changes]
            payloads = publishing.seats_revoked(agency_id, revoked, SeatRevocationReason.REQUESTED)
            uow.publish_encoded(SeatRevoked, agency_id, payloads)
            uow.publish_erased(PersonErased, agency_id, [subject_ref for _, subject_ref in revoked])
            erase_seats(uow, agency_id, [subject_ref for _, subject_ref in revoked])
        case _:
            await _transfer(uow, pool, [(seat, person) for seat, person in changes if person is not None])


async def _transfer(uow: UnitOfWork, pool: Pool, transfers: list[tuple[Seat, Person]]) -> None:
    agency_id = pool.agency_id
    await revoke_earlier(uow, pool, [person.subject_ref for _, person in transfers])
    await seat_trials.add_lost_trials(uow.connection, agency_id, [seat.seat_id for seat, _ in transfers])
    began = await seat_trials.find_earlier(uow.connection, agency_id, [person.subject_ref for _, person in transfers])
    await seats.save_transferred(
        uow.connection, agency_id, [(seat.seat_id, person) for seat, person in transfers], uow.now, began
    )
    await begin_seat_trials(uow, agency_id, began.values())
    await pools.save_revision(uow.connection, agency_id)
    for seat, person in transfers:
        uow.publish(publishing.seat_transferred(seat, person.subject_ref))
    # One by one: a person whose seat is transferred may get another seat in a later row.
    for seat, person in transfers:
        uow.publish(publishing.person_erased(seat))
        uow.publish(publishing.person_recorded(agency_id, person))
    touched = {subject_ref for seat, person in transfers for subject_ref in (seat.subject_ref, person.subject_ref)}
    await publish_subjects(uow, agency_id, sorted(touched))
