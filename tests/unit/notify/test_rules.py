"""The rules table: which events lead to which messages."""

from typing import Any

import pytest
from pydantic import ValidationError

from muster_contracts import event_types, topics
from muster_notify.domain.rules import Rules, public_types, types_on_request, wanted_types
from muster_notify.subscriptions import SUBSCRIPTIONS

INVOICE = "muster.billing.InvoiceIssued.v1"


def a_rule(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "event": INVOICE, "recipient": "administrator", "message": "invoice-issued", **changes}


def test_no_personal_data_can_leave_through_a_webhook() -> None:
    assert all(topics()[event_types()[name].topic].access == "public" for name in public_types())


def test_every_topic_that_notify_reads_is_subscribed_to() -> None:
    read = {name for topic in topics().values() if "notify" in topic.readers for name in topic.events}
    assert {cls.event_type for cls in SUBSCRIPTIONS} == read - {"muster.sandbox.ClockMoved.v1"}


def test_events_of_single_seats_are_sent_only_on_request() -> None:
    assert "muster.entitlements.SeatAssigned.v1" in types_on_request()
    assert {f"muster.entitlements.Quota{what}.v1" for what in ("ThresholdCrossed", "Exceeded")} <= types_on_request()
    assert "muster.entitlements.SeatPoolResized.v1" not in types_on_request()
    assert wanted_types(None) == set(public_types()) - types_on_request()
    assert wanted_types(["muster.entitlements.SeatAssigned.v1"]) == {"muster.entitlements.SeatAssigned.v1"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": [a_rule(event="muster.billing.NoSuchThing.v1")]},
        {"email": [a_rule(event="muster.enrollment.ContactRecorded.v1")]},
        {"email": [a_rule(), a_rule()]},
        {"email": [a_rule(recipient="everybody")]},
        {"email": [a_rule(recipient="person")]},
        {"email": [a_rule(when={"level": 1})]},
        {"email": [a_rule(until="period_ends_at")]},
    ],
    ids=[
        "unknown type",
        "restricted type",
        "same name twice",
        "unknown role",
        "of no person",
        "unknown field",
        "unknown instant",
    ],
)
def test_a_wrong_table_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(wrong)
