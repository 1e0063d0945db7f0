"""One agency's terms, invoices, renewals, and ledger transactions: pages, oldest first."""

from muster_billing.replies import EntryReply, InvoiceReply, RenewalReply, TermReply, TransactionReply
from muster_billing.repository import rows
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Page, Pagination


async def list_terms(connection: Connection, agency_id: str, page: Pagination) -> Page[TermReply]:
    found = await connection.fetch(
        """
        select *
        from term
        where agency_id = $1 and ($2::text is null or id > $2)
        order by id
        limit $3
        """,
        agency_id,
        page.after,
        page.rows,
    )
    return page.make([TermReply.of(rows.term(row)) for row in found], key=lambda term: term.term_id)


async def list_invoices(connection: Connection, agency_id: str, page: Pagination) -> Page[InvoiceReply]:
    found = await connection.fetch(
        """
        select invoice as invoice, term as term
        from invoice
        inner join term on invoice.term_id = term.id
        where invoice.agency_id = $1 and ($2::text is null or invoice.id > $2)
        order by invoice.id
        limit $3
        """,
        agency_id,
        page.after,
        page.rows,
    )
    replies = [InvoiceReply.of(rows.invoice(row["invoice"]), rows.term(row["term"])) for row in found]
    return page.make(replies, key=lambda invoice: invoice.invoice_id)


async def list_renewals(connection: Connection, agency_id: str, page: Pagination) -> Page[RenewalReply]:
    found = await connection.fetch(
        """
        select *
        from renewal
        where agency_id = $1 and ($2::text is null or id > $2)
        order by id
        limit $3
        """,
        agency_id,
        page.after,
        page.rows,
    )
    return page.make([RenewalReply.of(rows.renewal(row)) for row in found], key=lambda renewal: renewal.renewal_id)


async def list_transactions(connection: Connection, agency_id: str, page: Pagination) -> Page[TransactionReply]:
    """Raises InvalidCursor if the cursor belongs to another list."""
    found = await connection.fetch(
        """
        select
            t.id,
            t.agency_id,
            t.invoice_id,
            t.kind,
            t.recorded_at,
            array_agg(e.account order by e.amount_minor desc) as accounts,
            array_agg(e.amount_minor order by e.amount_minor desc) as amounts,
            min(e.currency) as currency
        from ledger_transaction as t
        inner join ledger_entry as e on t.id = e.transaction_id
        where t.agency_id = $1 and t.id > $2
        group by t.id
        order by t.id
        limit $3
        """,
        agency_id,
        page.after_id or 0,
        page.rows,
    )
    replies = [
        TransactionReply(
            transaction_id=row["id"],
            agency_id=row["agency_id"],
            invoice_id=row["invoice_id"],
            kind=row["kind"],
            recorded_at=row["recorded_at"],
            entries=[
                EntryReply.model_validate(
                    {"account": account, "amount": {"amount_minor": amount, "currency": row["currency"]}}
                )
                for account, amount in zip(row["accounts"], row["amounts"], strict=True)
            ],
        )
        for row in found
    ]
    return page.make(replies, key=lambda transaction: str(transaction.transaction_id))
