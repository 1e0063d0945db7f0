"""What billing is told from outside, beside the settings of every service."""

from pydantic import Field

from muster_billing.domain import Money, Tariff
from muster_runtime.settings import Settings


class BillingSettings(Settings):
    """The programme's prices, in whole minor units of one currency: cents for USD."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code.")
    term_price_minor: int = Field(default=100, gt=0, description="The price of a first term.")
    renewal_price_minor: int = Field(default=100, gt=0, description="The price at which a renewal is offered.")

    @property
    def tariff(self) -> Tariff:
        """The prices as the domain knows them."""
        return Tariff(
            first_term=Money(self.term_price_minor, self.currency),
            renewal=Money(self.renewal_price_minor, self.currency),
        )
