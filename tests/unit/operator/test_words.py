"""The words for what a service returns in numbers, or returns without a body."""

from typing import Any

import pytest
from rich.console import Console

from muster_operator.proposals import _body
from muster_operator.windows import _afterward, _length

WINDOW: dict[str, Any] = {
    "trial": True,
    "extended": False,
    "starts_at": "2025-09-15T04:00:00Z",
    "ends_at": "2025-11-14T05:00:00Z",  # in winter time
    "seat_days": None,
    "mode_after": "metered",
    "monthly_quota_after": 4,
    "grace_ends_at": None,
}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "60 days"),
        ({"extended": True}, "60 days, extended"),
        ({"seat_days": 30}, "30 days per seat"),
        ({"trial": False}, "the term"),
    ],
)
def test_how_long_a_window_lasts(changes: dict[str, Any], shown: str) -> None:
    assert _length(WINDOW | changes) == shown


def test_a_quota_is_each_seats() -> None:
    assert _afterward(WINDOW) == "4 a month per seat"


def test_a_proposal_without_a_body_says_where_to_review_it() -> None:
    proposal = {"body": None, "path": "/v1/catalog/draft/publication"}
    assert _body(proposal) == "Review it with `muster catalog draft`."
    console = Console(width=100)
    with console.capture() as shown:
        console.print(_body(proposal | {"body": {"allow_below_use": True}}))
    assert ('"allow_below_use": true' in shown.get(), "muster catalog draft" in shown.get()) == (True, True)
    assert _body(proposal | {"path": "/v1/terms"}) == "It has no body, or the body was deleted."
