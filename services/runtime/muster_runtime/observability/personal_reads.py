"""Records who read whose name or address: one row per request whose reply has any, in the reading transaction.

Without the row, there is no reply. The rows are not sealed; they are deleted after a time (the setting
`personal_read_retention_days`).
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from muster_runtime.context import Context
from muster_runtime.database.transactions import Connection, Database


@dataclass(slots=True)
class PersonalRead:
    """A request's read of personal data, and the references of the people read so far."""

    connection: Connection
    subject_refs: list[str] = field(default_factory=list)

    def saw(self, subject_refs: Iterable[str | None]) -> None:
        """Note whose names or addresses the reply has; None stands for nobody."""
        self.subject_refs += [subject_ref for subject_ref in subject_refs if subject_ref is not None]


@asynccontextmanager
async def reading(database: Database, agency_id: str, route: str, context: Context) -> AsyncIterator[PersonalRead]:
    """A transaction that sees one agency's rows, and at its end records whose data it read, if anyone's."""
    async with database.read_on_record(agency_id) as connection:
        read = PersonalRead(connection)
        yield read
        if read.subject_refs:
            await connection.execute(
                """
                insert into personal_read (read_at, agency_id, actor, route, subject_refs, request_id)
                values ($1, $2, $3, $4, $5, $6)
                """,
                database.clock.now(),
                agency_id,
                context.actor,
                route,
                read.subject_refs,
                context.request_id,
            )
