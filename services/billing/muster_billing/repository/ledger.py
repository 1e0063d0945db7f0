"""The SQL of the ledger. No role may change or delete its rows."""

from datetime import datetime

from muster_billing.domain.ledger import Transaction
from muster_runtime.database.writes import Write


def add_transaction(transaction: Transaction, recorded_at: datetime) -> Write:
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
