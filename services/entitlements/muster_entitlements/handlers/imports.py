"""Files of seats: one transaction's worth of rows at a time."""

from collections.abc import Iterator, Sequence

from muster_entitlements.commands import AssignSeats
from muster_entitlements.handlers.seats import Assignment, assign_seats
from muster_entitlements.people import Directory, Person
from muster_entitlements.replies import ImportReply, Outcome, RowResult
from muster_entitlements.seat_file import Row
from muster_runtime.db import UnitOfWork
from muster_runtime.errors import InvalidInput

CHUNK_ROWS = 1000


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows, a transaction's worth at a time."""
    for start in range(0, len(rows), CHUNK_ROWS):
        yield rows[start : start + CHUNK_ROWS]


async def import_rows(uow: UnitOfWork, agency_id: str, rows: Sequence[Row], directory: Directory) -> ImportReply:
    """Give the people of the rows a seat each. A bad row is refused with its reason; the others go on."""
    read = [(row, _read_person(agency_id, row, directory)) for row in rows]
    people = tuple(person for _, person in read if isinstance(person, Person))
    assignments = iter(await assign_seats(uow, AssignSeats(agency_id, people)))
    results = []
    for row, person in read:
        if isinstance(person, Person):
            subject, assignment = person.subject_ref, next(assignments)
        else:
            subject, assignment = None, Assignment(Outcome.REFUSED, person)
        results.append(RowResult(line=row.line, subject=subject, outcome=assignment.outcome, reason=assignment.reason))
    return ImportReply.of(results)


def _read_person(agency_id: str, row: Row, directory: Directory) -> Person | str:
    """The person of a row, or why it is refused."""
    if row.email is None:
        return "the row has not as many columns as the header"
    try:
        return directory.person(agency_id, row.email, row.name)
    except InvalidInput as refusal:
        return refusal.detail
