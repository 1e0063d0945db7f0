"""The SQL of terms."""

from datetime import datetime

from muster_billing.domain import Term
from muster_billing.repository import rows
from muster_runtime.database.transactions import Connection
from muster_runtime.errors import NotFound


async def add_term(connection: Connection, term: Term) -> bool:
    """Add a term. Returns False if its enrollment already has a term of that number."""
    added = await connection.fetchval(
        """
        insert into term (
            id, agency_id, enrollment_id, number, state, starts_at, ends_at, first_day, price_minor, currency
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict (agency_id, enrollment_id, number) do nothing
        returning true
        """,
        term.id,
        term.agency_id,
        term.enrollment_id,
        term.number,
        term.state,
        term.starts_at,
        term.ends_at,
        term.first_day,
        term.price.amount_minor,
        term.price.currency,
    )
    return added is not None


async def save_term(connection: Connection, term: Term) -> None:
    await connection.execute(
        """
        update term
        set state = $2, ended_at = $3, end_reason = $4
        where id = $1
        """,
        term.id,
        term.state,
        term.ended_at,
        term.end_reason,
    )


async def find_term(connection: Connection, agency_id: str, term_id: str) -> Term:
    """An agency's term. Raises NotFound."""
    row = await connection.fetchrow("select * from term where agency_id = $1 and id = $2", agency_id, term_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no term {term_id}")
    return rows.term(row)


async def has_term(connection: Connection, agency_id: str, enrollment_id: str) -> bool:
    """Whether an enrollment has, or had, a term."""
    found: bool = await connection.fetchval(
        "select exists (select from term where agency_id = $1 and enrollment_id = $2)", agency_id, enrollment_id
    )
    return found


async def find_live_term(connection: Connection, agency_id: str) -> Term | None:
    """The agency's scheduled or running term, if it has one."""
    row = await connection.fetchrow(
        """
        select *
        from term
        where agency_id = $1 and state in ('scheduled', 'running')
        """,
        agency_id,
    )
    return rows.term(row) if row else None


async def list_unfinished_enrollments(connection: Connection, agency_id: str, instant: datetime) -> list[str]:
    """The agency's enrollments with a live term, or with one whose planned end is after an instant."""
    found = await connection.fetch(
        """
        select distinct enrollment_id
        from term
        where agency_id = $1 and (state in ('scheduled', 'running') or ends_at > $2)
        order by enrollment_id
        """,
        agency_id,
        instant,
    )
    return [row["enrollment_id"] for row in found]


async def list_terms_ending_after(
    connection: Connection, agency_id: str, enrollment_id: str, instant: datetime
) -> list[Term]:
    """The enrollment's terms, whatever their state, whose planned end is after an instant."""
    found = await connection.fetch(
        """
        select *
        from term
        where agency_id = $1 and enrollment_id = $2 and ends_at > $3
        order by number
        """,
        agency_id,
        enrollment_id,
        instant,
    )
    return [rows.term(row) for row in found]
