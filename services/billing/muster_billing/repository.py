"""The write side's SQL. The caller's transaction holds the agency's lock, so what is read here stays true."""

from datetime import datetime

from muster_billing import rows
from muster_billing.domain import Invoice, Payment, Renewal, Term
from muster_billing.ledger import Transaction
from muster_runtime.database.transactions import Connection
from muster_runtime.database.writes import Write
from muster_runtime.errors import NotFound


async def add_term(connection: Connection, term: Term) -> bool:
    """Add a term; False when its enrollment has one of that number already."""
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


async def term_by_id(connection: Connection, agency_id: str, term_id: str) -> Term:
    """Raises NotFound."""
    row = await connection.fetchrow("select * from term where agency_id = $1 and id = $2", agency_id, term_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no term {term_id}")
    return rows.term(row)


async def live_term(connection: Connection, agency_id: str, enrollment_id: str) -> Term | None:
    """The enrollment's term that runs or is to start, if there is one."""
    row = await connection.fetchrow(
        """
        select *
        from term
        where agency_id = $1 and enrollment_id = $2 and state in ('scheduled', 'running')
        """,
        agency_id,
        enrollment_id,
    )
    return rows.term(row) if row else None


async def add_invoice(connection: Connection, invoice: Invoice) -> None:
    """Add a draft."""
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


async def next_ordinal(connection: Connection, agency_id: str, fiscal_year: int) -> int:
    """The next count of an agency's invoices of a fiscal year; under its lock, so that there is no gap."""
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


async def invoice_by_id(connection: Connection, agency_id: str, invoice_id: str) -> Invoice:
    """Raises NotFound."""
    row = await connection.fetchrow("select * from invoice where agency_id = $1 and id = $2", agency_id, invoice_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no invoice {invoice_id}")
    return rows.invoice(row)


async def invoice_of_term(connection: Connection, term: Term) -> Invoice:
    """Raises NotFound."""
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


async def renewal_by_id(connection: Connection, agency_id: str, renewal_id: str) -> Renewal:
    """Raises NotFound."""
    row = await connection.fetchrow("select * from renewal where agency_id = $1 and id = $2", agency_id, renewal_id)
    if row is None:
        raise NotFound(f"agency {agency_id} has no renewal {renewal_id}")
    return rows.renewal(row)


async def renewal_of_term(connection: Connection, term: Term) -> Renewal | None:
    row = await connection.fetchrow(
        "select * from renewal where agency_id = $1 and term_id = $2", term.agency_id, term.id
    )
    return rows.renewal(row) if row else None


def book(transaction: Transaction, recorded_at: datetime) -> Write:
    """Add a transaction and its entries to the ledger."""
    return (
        """
        booked as (
            insert into ledger_transaction (agency_id, invoice_id, kind, recorded_at)
            values ($1, $2, $3, $4)
            returning id
        ),
        entered as (
            insert into ledger_entry (transaction_id, agency_id, account, amount_minor, currency)
            select booked.id, $1, entry.account, entry.amount_minor, $5
            from booked, unnest($6::text [], $7::bigint []) as entry (account, amount_minor)
        )
        """,
        [
            transaction.agency_id,
            transaction.invoice_id,
            transaction.kind,
            recorded_at,
            transaction.currency,
            [entry.account for entry in transaction.entries],
            [entry.amount_minor for entry in transaction.entries],
        ],
    )
