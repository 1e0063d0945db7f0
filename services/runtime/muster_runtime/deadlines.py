"""Whatever must happen later: rows in the deadline table."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from muster_runtime.db import UnitOfWork


@dataclass(frozen=True, slots=True)
class Deadline:
    """At `due_at` the handler of `kind` is called for `subject` (an id of the service's own)."""

    kind: str
    agency_id: str
    subject: str
    due_at: datetime


# Handles what is due of one kind in one agency, by due instant. The rows are gone already: a handler
# that wants another turn schedules it. `uow.now` is not before any due instant; publish with time=due_at.
DeadlineHandler = Callable[[UnitOfWork, Sequence[Deadline]], Awaitable[None]]


async def schedule(uow: UnitOfWork, deadlines: Sequence[Deadline]) -> None:
    """Schedule deadlines; one of the same kind, agency and subject is moved."""
    if not deadlines:
        return
    await uow.connection.execute(
        """
        insert into deadline (kind, agency_id, subject, due_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
        on conflict (kind, agency_id, subject) do update set due_at = excluded.due_at
        """,
        [d.kind for d in deadlines],
        [d.agency_id for d in deadlines],
        [d.subject for d in deadlines],
        [d.due_at for d in deadlines],
    )
    uow.wake()


async def cancel(uow: UnitOfWork, agency_id: str, kind: str, subjects: Sequence[str]) -> None:
    """Remove deadlines; one that is not there is no error."""
    await uow.connection.execute(
        "delete from deadline where agency_id = $1 and kind = $2 and subject = any($3::text[])",
        agency_id,
        kind,
        list(subjects),
    )
