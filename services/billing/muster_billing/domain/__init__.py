"""The rules of terms, invoices and renewals. No I/O, no clock: the time is an argument."""

from muster_billing.domain.calendar import civil_day, fiscal_year
from muster_billing.domain.invoices import Invoice, InvoiceState, Issuance, OverdueNotice, Payment, invoice_number
from muster_billing.domain.money import MAX_MINOR, Money, Tariff
from muster_billing.domain.terms import Renewal, RenewalState, Term, TermState

__all__ = [
    "MAX_MINOR",
    "Invoice",
    "InvoiceState",
    "Issuance",
    "Money",
    "OverdueNotice",
    "Payment",
    "Renewal",
    "RenewalState",
    "Tariff",
    "Term",
    "TermState",
    "civil_day",
    "fiscal_year",
    "invoice_number",
]
