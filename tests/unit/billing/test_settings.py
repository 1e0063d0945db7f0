"""Prices are whole cents, and never zero."""

import pytest
from pydantic import ValidationError

from muster_billing.domain import Money
from muster_billing.settings import BillingSettings


def test_a_term_costs_one_dollar_by_default() -> None:
    assert BillingSettings(environment="sandbox").tariff.first_term == Money(100, "USD")


@pytest.mark.parametrize(
    "wrong",
    [
        {"term_price_minor": 0},
        {"term_price_minor": 100.1},
        {"term_price_minor": 10**12 + 1},
        {"renewal_price_minor": -1},
        {"renewal_price_minor": 10**12 + 1},
        {"currency": "usd"},
    ],
)
def test_an_invalid_price_is_refused_at_the_start(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BillingSettings.model_validate({"environment": "sandbox", **wrong})
