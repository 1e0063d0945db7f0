"""The SQL of invoices and their payments."""

from muster_billing.domain import Invoice, Payment, Term
from muster_billing.repository import rows
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write
from muster_runtime.errors import NotFound


async def add_invoice(connection: Connection, invoice: Invoice) -> None:
    """Add a draft invoice."""
    await connection.execute(
        """
        insert into invoice (id, agency_id, term_id, state, fiscal_year, amount_minor, currency)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        invoice.id,
        invoice.agency_id,
        invoice.term_id,
        invoice.state,
        invoice.fiscal_year,
        invoice.amount.amount_minor,
        invoice.amount.currency,
    )


def save_invoice(invoice: Invoice) -> Write:
    issuance = invoice.issuance
    return (
        """
        saved_invoice as (
            update invoice
            set
                state = $2,
                ordinal = $3,
                issued_at = $4,
                due_at = $5,
                overdue_level = $6,
                paid_at = $7,
                voided_at = $8,
                void_reason = $9
            where id = $1
        )
        """,
        [
            invoice.id,
            invoice.state,
            issuance.ordinal if issuance else None,
            issuance.issued_at if issuance else None,
            issuance.due_at if issuance else None,
            invoice.overdue_level,
            invoice.paid_at,
            invoice.voided_at,
            invoice.void_reason,
        ],
    )


async def find_next_ordinal(connection: Connection, agency_id: str, fiscal_year: int) -> int:
    """The number of an agency's next invoice in a fiscal year. Under the agency's lock, there are no gaps."""
    ordinal: int = await connection.fetchval(
        """
        select coalesce(max(ordinal), 0) + 1
        from invoice
        where agency_id = $1 and fiscal_year = $2
        """,
        agency_id,
        fiscal_year,
    )
    return ordinal


async def find_invoice(connection: Connection, agency_id: str, invoice_id: str) -> Invoice:
    """An agency's invoice. Raises NotFound."""
    row = await connection.fetchrow("select * from invoice where agency_id = $1 and id = $2", agency_id, invoice_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no invoice {invoice_id}")
    return rows.invoice(row)


async def find_invoice_of_term(connection: Connection, term: Term) -> Invoice:
    """The invoice of a term. Raises NotFound."""
    row = await connection.fetchrow(
        "select * from invoice where agency_id = $1 and term_id = $2", term.agency_id, term.id
    )
    if row is None:
        raise NotFound(f"term {term.id} has no invoice")
    return rows.invoice(row)


def add_payment(payment: Payment) -> Write:
    return (
        """
        added_payment as (
            insert into payment (id, agency_id, invoice_id, amount_minor, currency, reference, paid_at)
            values ($1, $2, $3, $4, $5, $6, $7)
        )
        """,
        [
            payment.id,
            payment.agency_id,
            payment.invoice_id,
            payment.amount.amount_minor,
            payment.amount.currency,
            payment.reference,
            payment.paid_at,
        ],
    )
