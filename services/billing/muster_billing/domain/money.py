"""Amounts and prices."""

from dataclasses import dataclass

# The largest amount of a price or a payment, in minor units.
MAX_MINOR = 10**12


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in whole minor units (cents for USD) of an ISO 4217 currency."""

    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Tariff:
    """The program's prices for a term of one year."""

    first_term: Money
    renewal: Money
