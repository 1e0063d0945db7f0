"""Processes the chunks of imports. This is the hot path: no object and no statement per row."""

from collections.abc import Iterable

from muster_contracts.entitlements import SeatAssigned
from muster_entitlements import publishing
from muster_entitlements.domain.operations import OnLimit, Operation
from muster_entitlements.domain.people import Directory, Person, mailable_email, normalize_name
from muster_entitlements.domain.pools import ASSIGNABLE, Pool
from muster_entitlements.domain.row_results import MISSHAPEN, Report, Row, refuse_all, rule_of
from muster_entitlements.domain.seat_file import Columns
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.units import normalize_unit
from muster_entitlements.errors import SeatCapReached
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.seat_limit import publish_limit_reached
from muster_entitlements.handlers.seat_trials import begin_seat_trials
from muster_entitlements.handlers.snapshots import publish_new_seats
from muster_entitlements.repository import dry_runs, pools, seat_trials, seats
from muster_entitlements.repository.seats import SeatColumns
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.identifiers import new_ids
from muster_runtime.pacing import Pace

ASSIGNED = "assigned"
ALREADY_HELD = "already_held"
NO_SEAT_FREE = "no seat is free"

# The people in the rows, by subject: address, name, and the seat's unit, from each person's first row.
_People = dict[str, tuple[str, str | None, str | None]]


async def import_rows(uow: UnitOfWork, operation: Operation, rows: Iterable[Row], directory: Directory) -> Report:
    """Assign a seat to each person of the rows, in order, up to the cap.

    An invalid row is refused with its reason, and does not stop the others. A person who holds a seat keeps it.
    """
    pool = await known_pool(uow, operation.agency_id)
    state = pool.state(uow.now)
    if state not in ASSIGNABLE:
        return refuse_all(rows, f"the seat pool is {state}")
    assert operation.columns is not None  # every running operation was received
    lines, people = await _read(rows, operation.agency_id, operation.columns, directory)
    holders = await _holders(uow, operation, people)
    requested = [subject for subject in people if subject not in holders]
    # While a dry run continues, other commands may assign seats or shrink the pool.
    free = max(0, pool.free - operation.done) if operation.dry_run else pool.free
    assigned, refused = requested[:free], set(requested[free:])
    if assigned:
        await _assign(uow, operation, pool, assigned, people)
    if refused and not operation.dry_run:
        await publish_limit_reached(uow, pool, len(refused) if operation.on_limit is OnLimit.FILL else 1)
    return _report(lines, set(assigned), refused, operation.on_limit)


async def _read(
    rows: Iterable[Row], agency_id: str, columns: Columns, directory: Directory
) -> tuple[list[tuple[int, str, str]], _People]:
    """The line and subject of each row, with the reason if it is invalid; and the people."""
    lines: list[tuple[int, str, str]] = []
    people: _People = {}
    key, name_at, unit_at, reference = columns.key, columns.name, columns.unit, directory.reference
    pace = Pace()
    for line, fields in rows:
        await pace.keep()
        if fields is None:
            lines.append((line, "", MISSHAPEN))
            continue
        try:
            address = mailable_email(fields[key])
            name = normalize_name(fields[name_at]) if name_at is not None else None
            unit = normalize_unit(fields[unit_at]) if unit_at is not None else None
        except InvalidInput as refusal:
            lines.append((line, "", rule_of(refusal)))
            continue
        subject = reference(agency_id, address)
        lines.append((line, subject, ""))
        if subject not in people:
            people[subject] = (address, name, unit)
    return lines, people


async def _holders(uow: UnitOfWork, operation: Operation, people: _People) -> set[str]:
    subjects = list(people)
    holders = await seats.find_holders(uow.connection, operation.agency_id, subjects)
    if operation.dry_run:
        holders |= (await dry_runs.find_simulated(uow.connection, operation, subjects)).keys()
    return holders


async def _assign(uow: UnitOfWork, operation: Operation, pool: Pool, subjects: list[str], people: _People) -> None:
    if operation.dry_run:
        await dry_runs.save_simulated(uow.connection, operation, dict.fromkeys(subjects, ("", SeatState.ASSIGNED)))
        return
    agency_id = pool.agency_id
    began = await seat_trials.find_earlier(uow.connection, agency_id, subjects)
    with_units = operation.columns is not None and operation.columns.unit is not None
    columns = SeatColumns(
        seat_ids=new_ids("seat", uow.now, len(subjects)),
        subject_refs=subjects,
        emails=[people[subject][0] for subject in subjects],
        names=[people[subject][1] or "" for subject in subjects],
        began=began,
        units=[people[subject][2] or "" for subject in subjects] if with_units else (),
    )
    await revoke_earlier(uow, pool, subjects)
    await writes.execute(
        uow.connection,
        seats.add_seats(agency_id, columns, SeatState.ASSIGNED, uow.now, generation=pool.generation),
        pools.save_seats_in_use(agency_id, len(subjects), limit_met=pool.limit_met),
    )
    payloads = publishing.seats_assigned(agency_id, columns.seat_ids, subjects, columns.units)
    uow.publish_encoded(SeatAssigned, agency_id, payloads)
    await publish_new_seats(uow, pool, subjects, SeatState.ASSIGNED, began)
    await begin_seat_trials(uow, agency_id, began.values())
    if operation.directory:
        for subject in subjects:
            uow.publish(publishing.person_recorded(agency_id, Person(subject, *people[subject][:2])))


def _report(lines: list[tuple[int, str, str]], assigned: set[str], refused: set[str], on_limit: OnLimit) -> Report:
    report = Report()
    for line, subject, reason in lines:
        if subject in assigned:
            assigned.remove(subject)  # a person's first row gets the seat; the others find it held
            report.add(line, subject, ASSIGNED)
        elif reason:
            report.refuse(line, subject, reason)
        elif subject not in refused:
            report.keep(line, subject, ALREADY_HELD)
        elif on_limit is OnLimit.FILL:
            report.refuse(line, subject, NO_SEAT_FREE)
        else:
            report.refuse(line, subject, NO_SEAT_FREE)
            report.stop_reason = SeatCapReached.slug
            break
    return report
