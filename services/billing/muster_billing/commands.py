"""What billing can be asked to do."""

from dataclasses import dataclass

from muster_billing.domain import Money
from muster_contracts.billing import RenewalDecision


@dataclass(frozen=True, slots=True)
class RecordPayment:
    """An agency has paid an invoice; `reference` is the payer's own, such as a Treasury schedule number."""

    agency_id: str
    invoice_id: str
    amount: Money
    reference: str


@dataclass(frozen=True, slots=True)
class DecideRenewal:
    """An agency accepts or declines the offer of a further term."""

    agency_id: str
    renewal_id: str
    decision: RenewalDecision
