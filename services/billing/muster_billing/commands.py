"""The commands of billing."""

from dataclasses import dataclass

from muster_billing.domain import Money
from muster_contracts.billing import RenewalDecision


@dataclass(frozen=True, slots=True)
class RecordPayment:
    """Record a payment; `reference` is the payer's own, such as a Treasury schedule number."""

    agency_id: str
    invoice_id: str
    amount: Money
    reference: str


@dataclass(frozen=True, slots=True)
class DecideRenewal:
    """Accept or decline the offer of the next term."""

    agency_id: str
    renewal_id: str
    decision: RenewalDecision
