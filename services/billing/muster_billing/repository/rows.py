"""Converts table rows to objects of the domain."""

from collections.abc import Mapping
from typing import Any

from muster_billing.domain import (
    Invoice,
    InvoiceState,
    Issuance,
    Money,
    Renewal,
    RenewalState,
    Term,
    TermState,
)

Row = Mapping[str, Any]


def term(row: Row) -> Term:
    return Term(
        id=row["id"],
        agency_id=row["agency_id"],
        enrollment_id=row["enrollment_id"],
        number=row["number"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        first_day=row["first_day"],
        price=Money(row["price_minor"], row["currency"]),
        state=TermState(row["state"]),
        ended_at=row["ended_at"],
        end_reason=row["end_reason"],
    )


def invoice(row: Row) -> Invoice:
    issued = row["ordinal"] is not None
    return Invoice(
        id=row["id"],
        agency_id=row["agency_id"],
        term_id=row["term_id"],
        fiscal_year=row["fiscal_year"],
        amount=Money(row["amount_minor"], row["currency"]),
        state=InvoiceState(row["state"]),
        issuance=Issuance(row["ordinal"], row["issued_at"], row["due_at"]) if issued else None,
        overdue_level=row["overdue_level"],
        paid_at=row["paid_at"],
        voided_at=row["voided_at"],
        void_reason=row["void_reason"],
    )


def renewal(row: Row) -> Renewal:
    return Renewal(
        id=row["id"],
        agency_id=row["agency_id"],
        term_id=row["term_id"],
        price=Money(row["price_minor"], row["currency"]),
        next_starts_at=row["next_starts_at"],
        next_ends_at=row["next_ends_at"],
        offered_at=row["offered_at"],
        state=RenewalState(row["state"]),
        decided_at=row["decided_at"],
    )
