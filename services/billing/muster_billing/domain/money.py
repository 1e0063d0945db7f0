"""Amounts and prices."""

from dataclasses import dataclass


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
