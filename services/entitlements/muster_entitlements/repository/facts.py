"""The events behind facts. Those that this service publishes are kept by the outbox's trigger."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from muster_contracts import Envelope
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from muster_runtime.database.unit_of_work import UnitOfWork

_ADD = """
kept_facts as (
    insert into fact_event (agency_id, subject, event_id, type, time)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    on conflict do nothing
)
"""


@dataclass(frozen=True, slots=True)
class FactEvent:
    """An event that says what became of a fact."""

    event_id: str
    type: str
    time: datetime


def add_event(uow: UnitOfWork, subject: str, envelope: Envelope) -> None:
    """Keep that an event says something of an enrollment or a term."""
    uow.writes.add_row(_ADD, envelope.agency_id, subject, envelope.id, envelope.type, envelope.time)


async def list_events(
    connection: Connection, agency_id: str, subjects: Iterable[str]
) -> defaultdict[str, list[FactEvent]]:
    """The events behind facts of an agency, and of the program, by the fact; oldest first."""
    rows = await connection.fetch(
        """
        select subject, event_id, type, time
        from fact_event
        where agency_id in ($1, $2) and subject = any($3::text[])
        order by time, event_id
        """,
        agency_id,
        EVERY_AGENCY,
        list(subjects),
    )
    found: defaultdict[str, list[FactEvent]] = defaultdict(list)
    for row in rows:
        found[row["subject"]].append(FactEvent(row["event_id"], row["type"], row["time"]))
    return found
