"""The words for what a service returns in numbers, or returns without a body."""

from typing import Any

import pytest
from rich.console import Console

from muster_operator.feature_catalog import _changes, _losing, access
from muster_operator.proposals import _body
from muster_operator.windows import _afterward, _length, _now, _previewed

WINDOW: dict[str, Any] = {
    "trial": True,
    "extended": False,
    "seat_days": None,
    "mode": "unlimited",
    "mode_after": "quota",
    "access": "unlimited",
    "grace_ends_at": None,
}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "the trial"),
        ({"extended": True}, "the extended trial"),
        ({"seat_days": 30}, "30 days per seat"),
        ({"trial": False}, "the term"),
    ],
)
def test_a_windows_length_in_words(changes: dict[str, Any], shown: str) -> None:
    assert _length(WINDOW | changes) == shown


@pytest.mark.parametrize("restarts", [True, False])
def test_a_preview_says_that_a_quota_starts_again(restarts: bool) -> None:
    window = {"feature": "notes", "starts_at": "2025-08-20T00:00:00Z", "ends_at": "2025-10-19T00:00:00Z"}
    previous = {"previous_starts_at": "2025-09-10T00:00:00Z", "previous_ends_at": "2025-11-09T00:00:00Z"}
    reply: dict[str, Any] = {"window": window, **previous, "seats": 1, "messages": []}
    console = Console(width=120)
    with console.capture() as shown:
        console.print(_previewed(reply | {"restarts_quota": restarts}))
    assert ("The quota would start again" in shown.get()) is restarts


FEATURE: dict[str, Any] = {"quota": None, "monthly_quota_after": 4}


def test_a_monthly_quota_is_per_seat() -> None:
    assert _afterward(WINDOW, FEATURE) == "4 a month per seat"
    graced = _afterward(WINDOW | {"grace_ends_at": "2025-11-21T05:00:00Z"}, FEATURE)
    assert graced == "4 a month per seat, after grace until 2025-11-21T05:00:00Z"


@pytest.mark.parametrize(
    ("quota", "shown"),
    [
        ({"per": "seat", "period": "month"}, "2,000 a month per seat"),
        ({"per": "agency", "period": "month", "hard": False}, "2,000 a month per agency, soft"),
        (
            {"per": "seat", "period": "anchor", "report_only": True},
            "2,000 a month from its start per seat, report-only",
        ),
    ],
)
def test_a_quota_is_shown_with_its_terms(quota: dict[str, Any], shown: str) -> None:
    feature = {"quota": {"limit": 2000, **quota}, "monthly_quota_after": None}
    assert (access("quota", feature), access("none", feature)) == (shown, "none")


def test_current_access_is_by_seat_if_the_trial_is_per_seat() -> None:
    assert _now(WINDOW, FEATURE, "open") == "unlimited"
    assert _now(WINDOW | {"access": "quota"}, FEATURE, "open") == "4 a month per seat"
    assert _now(WINDOW | {"seat_days": 30}, FEATURE, "open") == "by seat"


@pytest.mark.parametrize(
    ("pool", "shown"),
    [("withdrawn", "none (withdrawn)"), ("ended", "none (ended)"), ("not_started", "none (not started)")],
)
def test_nothing_applies_unless_the_pool_is_open(pool: str, shown: str) -> None:
    for window in (WINDOW, WINDOW | {"access": "quota"}, WINDOW | {"seat_days": 30}):
        assert _now(window, FEATURE, pool) == shown


def test_a_plan_explains_effects_without_a_change() -> None:
    feature: dict[str, Any] = {"removed": False, "changed": [], "losing": ["NASA"], "losing_seats": 1}
    assert _changes(feature, 4) == "as in version 4, which some agencies do not have yet"
    assert _losing(feature, "now") == "1 agency, 1 seat"
    gone = feature | {"removed": True, "losing": []}
    assert _losing(gone, "now") == "who has it, at the end of the term"
    assert _losing(gone, "new-agencies") == "nobody"
    narrower = feature | {"narrower": True, "losing": []}
    assert [_losing(narrower, rule) for rule in ("now", "next-term")] == [_losing(gone, "now"), "nobody"]


def test_a_proposal_without_a_body_says_where_to_review_it() -> None:
    proposal = {"body": None, "path": "/v1/catalog/draft/publication", "state": "pending"}
    assert _body(proposal) == "Review it with `muster catalog draft`."
    assert _body(proposal | {"outdated": True}) == "It is for an earlier draft."
    assert _body(proposal | {"state": "approved"}) == "It has no body, or the body was deleted."
    console = Console(width=100)
    with console.capture() as shown:
        console.print(_body(proposal | {"body": {"allow_below_use": True}}))
    assert ('"allow_below_use": true' in shown.get(), "muster catalog draft" in shown.get()) == (True, True)
    assert _body(proposal | {"path": "/v1/terms"}) == "It has no body, or the body was deleted."
