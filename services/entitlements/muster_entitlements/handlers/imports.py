"""A chunk of a file whose people are given a seat each. It is the hot path: no object and no statement per row."""

from collections.abc import Iterable

from muster_contracts.entitlements import SeatAssigned
from muster_entitlements import publishing
from muster_entitlements.domain import ASSIGNABLE, OnLimit, Pool, SeatState
from muster_entitlements.errors import SeatCapReached
from muster_entitlements.handlers.closings import revoke_earlier
from muster_entitlements.handlers.report import MISSHAPEN, Report, Row, refuse_all, rule_of
from muster_entitlements.handlers.seats import known_pool, publish_limit_reached
from muster_entitlements.people import Directory, Person, normalize_email, normalize_name
from muster_entitlements.repository import dry_runs, pools, seats
from muster_entitlements.repository.operations import Operation
from muster_entitlements.repository.seats import SeatColumns
from muster_entitlements.seat_file import Columns
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.identifiers import new_ids
from muster_runtime.pacing import Pace

ASSIGNED = "assigned"
ALREADY_HELD = "already_held"

# Who has a row: address and name by subject, each at the first of the person's rows.
_People = dict[str, tuple[str, str | None]]


async def import_rows(uow: UnitOfWork, operation: Operation, rows: Iterable[Row], directory: Directory) -> Report:
    """Give the people of the rows a seat each, in their order, as far as the cap goes.

    A bad row is refused with its reason, and the others go on. Who holds a seat already keeps it.
    """
    pool = await known_pool(uow, operation.agency_id)
    state = pool.state(uow.now)
    if state not in ASSIGNABLE:
        return refuse_all(rows, state.value)
    assert operation.columns is not None  # every operation that runs was received
    lines, people = await _read(rows, operation.agency_id, operation.columns, directory)
    holders = await _holders(uow, operation, people)
    wanted = [subject for subject in people if subject not in holders]
    # During a dry run, seats may really be assigned, or the pool may shrink.
    free = max(0, pool.free - operation.done) if operation.dry_run else pool.free
    given, refused = wanted[:free], set(wanted[free:])
    if given:
        await _give_out(uow, operation, pool, given, people)
    if refused and not operation.dry_run:
        await publish_limit_reached(uow, pool, len(refused) if operation.on_limit is OnLimit.FILL else 1)
    return _report(lines, set(given), refused, operation.on_limit)


async def _read(
    rows: Iterable[Row], agency_id: str, columns: Columns, directory: Directory
) -> tuple[list[tuple[int, str, str]], _People]:
    """Line, subject and, for a row that is not a person's, why not; and the people."""
    lines: list[tuple[int, str, str]] = []
    people: _People = {}
    key, name_at, reference = columns.key, columns.name, directory.reference
    pace = Pace()
    for line, fields in rows:
        await pace.keep()
        if fields is None:
            lines.append((line, "", MISSHAPEN))
            continue
        try:
            address = normalize_email(fields[key])
            name = normalize_name(fields[name_at]) if name_at is not None else None
        except InvalidInput as refusal:
            lines.append((line, "", rule_of(refusal)))
            continue
        subject = reference(agency_id, address)
        lines.append((line, subject, ""))
        if subject not in people:
            people[subject] = (address, name)
    return lines, people


async def _holders(uow: UnitOfWork, operation: Operation, people: _People) -> set[str]:
    subjects = list(people)
    holders = await seats.find_holders(uow.connection, operation.agency_id, subjects)
    if operation.dry_run:
        holders |= (await dry_runs.find_supposed(uow.connection, operation, subjects)).keys()
    return holders


async def _give_out(uow: UnitOfWork, operation: Operation, pool: Pool, given: list[str], people: _People) -> None:
    if operation.dry_run:
        await dry_runs.mark(uow.connection, operation, dict.fromkeys(given, ("", SeatState.ASSIGNED)))
        return
    agency_id = pool.agency_id
    columns = SeatColumns(
        seat_ids=new_ids("seat", uow.now, len(given)),
        subject_refs=given,
        emails=[people[subject][0] for subject in given],
        names=[people[subject][1] or "" for subject in given],
    )
    await revoke_earlier(uow, pool, given)
    await writes.execute(
        uow.connection,
        seats.add_seats(agency_id, columns, SeatState.ASSIGNED, uow.now, generation=pool.generation),
        pools.use_seats(agency_id, len(given), limit_met=pool.limit_met),
    )
    payloads = publishing.seats_assigned(agency_id, columns.seat_ids, given)
    uow.publish_encoded(SeatAssigned, agency_id, payloads)
    if operation.directory:
        for subject in given:
            uow.publish(publishing.person_recorded(agency_id, Person(subject, *people[subject])))


def _report(lines: list[tuple[int, str, str]], given: set[str], refused: set[str], on_limit: OnLimit) -> Report:
    report = Report()
    for line, subject, reason in lines:
        if subject in given:
            given.remove(subject)  # the first of a person's rows has the seat; the others find it held
            report.add(line, subject, ASSIGNED)
        elif reason:
            report.refuse(line, subject, reason)
        elif subject not in refused:
            report.leave(line, subject, ALREADY_HELD)
        elif on_limit is OnLimit.FILL:
            report.refuse(line, subject, SeatCapReached.slug)
        else:
            report.refuse(line, subject, SeatCapReached.slug)
            report.stop_reason = SeatCapReached.slug
            break
    return report
