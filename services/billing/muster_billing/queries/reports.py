"""The reports of the whole program: whether the books agree, and the forecast of a fiscal year."""

from datetime import date

from muster_billing.replies import (
    ForecastLineReply,
    ForecastReply,
    MisbookedInvoiceReply,
    ReconciliationReply,
    TermWithoutInvoiceReply,
    UnbalancedAccountReply,
)
from muster_contracts import Money
from muster_runtime.database.transactions import Connection


async def reconcile(connection: Connection) -> ReconciliationReply:
    """Where terms, invoices, and the ledger disagree; every list is empty if they agree."""
    return ReconciliationReply(
        terms_without_invoice=await _terms_without_invoice(connection),
        misbooked_invoices=await _misbooked_invoices(connection),
        unbalanced_accounts=await _unbalanced_accounts(connection),
    )


async def forecast(connection: Connection, fiscal_year: int) -> ForecastReply:
    """The accepted and the open renewals whose term begins in a fiscal year, unless its invoice was voided.

    A renewal that was accepted late has its own first day.
    """
    found = await connection.fetch(
        """
        select r.state, count(*) as renewals, sum(r.price_minor)::bigint as amount_minor, r.currency
        from renewal as r
        join term as t on t.id = r.term_id
        left join term as following
            on following.agency_id = t.agency_id
            and following.enrollment_id = t.enrollment_id and following.number = t.number + 1
        cross join lateral (select coalesce(following.first_day, t.first_day + interval '1 year') as first_day) as next
        where
            r.state in ('accepted', 'offered') and next.first_day >= $1 and next.first_day < $2
            and not exists (select from invoice where invoice.term_id = following.id and invoice.state = 'void')
        group by r.state, r.currency
        order by r.state, r.currency
        """,
        date(fiscal_year - 1, 10, 1),
        date(fiscal_year, 10, 1),
    )
    return ForecastReply(
        fiscal_year=fiscal_year,
        lines=[
            ForecastLineReply(
                state=row["state"],
                renewals=row["renewals"],
                amount=Money(amount_minor=row["amount_minor"], currency=row["currency"]),
            )
            for row in found
        ],
    )


async def _terms_without_invoice(connection: Connection) -> list[TermWithoutInvoiceReply]:
    found = await connection.fetch(
        """
        select term.agency_id, term.id as term_id, term.number
        from term
        where not exists (select from invoice where invoice.term_id = term.id)
        order by term.id
        """
    )
    return [TermWithoutInvoiceReply(**row) for row in found]


async def _misbooked_invoices(connection: Connection) -> list[MisbookedInvoiceReply]:
    found = await connection.fetch(
        """
        select
            invoice.agency_id,
            invoice.id as invoice_id,
            expected.kind,
            booked.id is not null as booked
        from invoice
        cross join lateral (
            values
            ('invoice_issued', invoice.issued_at is not null),
            ('payment_received', invoice.state = 'paid'),
            ('invoice_voided', invoice.state = 'void' and invoice.issued_at is not null)
        ) as expected (kind, wanted)
        left join ledger_transaction as booked
            on invoice.id = booked.invoice_id and expected.kind = booked.kind
        where expected.wanted <> (booked.id is not null)
        order by invoice.id, expected.kind
        """
    )
    return [MisbookedInvoiceReply(**row) for row in found]


async def _unbalanced_accounts(connection: Connection) -> list[UnbalancedAccountReply]:
    found = await connection.fetch(
        """
        with expected as (
            select
                invoice.agency_id,
                effect.account,
                invoice.currency,
                sum(effect.amount_minor)::bigint as amount_minor
            from invoice
            cross join lateral (
                values
                (
                    'accounts_receivable',
                    case when invoice.state = 'issued' then invoice.amount_minor else 0 end
                ),
                (
                    'revenue',
                    case when invoice.state in ('issued', 'paid') then -invoice.amount_minor else 0 end
                )
            ) as effect (account, amount_minor)
            group by invoice.agency_id, effect.account, invoice.currency
            union all
            select agency_id, 'cash' as account, currency, sum(amount_minor)::bigint as amount_minor
            from payment
            group by agency_id, currency
        ),
        booked as (
            select agency_id, account, currency, sum(amount_minor)::bigint as amount_minor
            from ledger_entry
            group by agency_id, account, currency
        )
        select
            agency_id,
            account,
            currency,
            coalesce(booked.amount_minor, 0) as ledger_minor,
            coalesce(expected.amount_minor, 0) as expected_minor
        from expected
        full join booked using (agency_id, account, currency)
        where coalesce(booked.amount_minor, 0) <> coalesce(expected.amount_minor, 0)
        order by agency_id, account, currency
        """
    )
    return [UnbalancedAccountReply(**row) for row in found]
