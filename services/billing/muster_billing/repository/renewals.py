"""The SQL of renewal offers."""

from muster_billing.domain import Renewal, Term
from muster_billing.repository import rows
from muster_runtime.database.transactions import Connection
from muster_runtime.errors import NotFound


async def add_renewal(connection: Connection, renewal: Renewal) -> None:
    await connection.execute(
        """
        insert into renewal (
            id, agency_id, term_id, state, price_minor, currency, next_starts_at, next_ends_at, offered_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        renewal.id,
        renewal.agency_id,
        renewal.term_id,
        renewal.state,
        renewal.price.amount_minor,
        renewal.price.currency,
        renewal.next_starts_at,
        renewal.next_ends_at,
        renewal.offered_at,
    )


async def save_renewal(connection: Connection, renewal: Renewal) -> None:
    await connection.execute(
        """
        update renewal
        set state = $2, decided_at = $3, next_starts_at = $4, next_ends_at = $5
        where id = $1
        """,
        renewal.id,
        renewal.state,
        renewal.decided_at,
        renewal.next_starts_at,
        renewal.next_ends_at,
    )


async def find_renewal(connection: Connection, agency_id: str, renewal_id: str) -> Renewal:
    """An agency's renewal. Raises NotFound."""
    row = await connection.fetchrow("select * from renewal where agency_id = $1 and id = $2", agency_id, renewal_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no renewal {renewal_id}")
    return rows.renewal(row)


async def find_renewal_of_term(connection: Connection, term: Term) -> Renewal | None:
    row = await connection.fetchrow(
        "select * from renewal where agency_id = $1 and term_id = $2", term.agency_id, term.id
    )
    return rows.renewal(row) if row else None
