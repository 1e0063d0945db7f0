"""The settings of billing, in addition to those of every service."""

from zoneinfo import ZoneInfo

from pydantic import Field

from muster_billing.domain import MAX_MINOR, Money, Tariff
from muster_runtime.settings import Settings


class BillingSettings(Settings):
    """The program's prices, in whole minor units of one currency (cents for USD), and where its days begin."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code.")
    term_price_minor: int = Field(default=100, gt=0, le=MAX_MINOR, description="The price of a first term.")
    renewal_price_minor: int = Field(
        default=100, gt=0, le=MAX_MINOR, description="The price at which a renewal is offered."
    )
    time_zone: ZoneInfo = Field(
        default=ZoneInfo("America/New_York"),
        description="The time zone of the program's civil days: GSA awards its agreements in Washington, D.C., which "
        "is in the eastern zone (15 U.S.C. 261 and 263, 49 CFR part 71).",
    )

    @property
    def tariff(self) -> Tariff:
        """The prices as an object of the domain."""
        return Tariff(
            first_term=Money(self.term_price_minor, self.currency),
            renewal=Money(self.renewal_price_minor, self.currency),
        )
