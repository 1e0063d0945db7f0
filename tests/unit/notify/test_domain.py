"""When a delivery is retried, and when it is given up."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster_notify.domain.deliveries import (
    GIVE_UP_AFTER,
    Channel,
    Delivery,
    DeliveryState,
    Intent,
    Outcome,
    Verdict,
    next_attempt,
    progress,
)

START = datetime(2025, 8, 6, tzinfo=UTC)


def an_intent(**changes: str) -> Intent:
    given: dict[str, Any] = {
        "agency_id": "NASA",
        "event_id": "muster.billing.term/NASA/1/00000000000000000001",
        "event_type": "muster.billing.InvoiceIssued.v1",
        "correlation_id": "cor_1",
        "rule": "invoice-issued",
        "recipient": "administrator",
        "audience": "NASA",
    }
    return Intent(**{**given, **changes}, channel=Channel.EMAIL, payload=b"{}")


def a_delivery(channel: Channel = Channel.WEBHOOK, attempts: int = 0, first: datetime | None = None) -> Delivery:
    return Delivery(
        "dlv_1", "NASA", "type", "cor_1", "webhook", channel, "whk_1", "NASA", b"{}", attempts, attempts, first
    )


def test_the_delivery_id_depends_only_on_event_rule_and_recipient() -> None:
    same = an_intent(correlation_id="cor_2", audience="*")
    assert same.delivery_id == an_intent().delivery_id
    others = {an_intent(**{field: "x"}).delivery_id for field in ("event_id", "rule", "recipient")}
    assert len(others | {an_intent().delivery_id}) == 4


def test_attempts_follow_the_schedule_and_end_within_fourteen_days() -> None:
    at, attempts, waits = START, 1, []
    while (due_at := next_attempt(attempts, START, at)) is not None:
        waits.append(due_at - at)
        at, attempts = due_at, attempts + 1
    hours = [wait / timedelta(hours=1) for wait in waits[2:]]
    assert waits[:2] == [timedelta(seconds=5), timedelta(minutes=5)]
    assert hours[:6] == [0.5, 2, 5, 10, 14, 20]
    assert set(hours[6:]) == {24}
    assert timedelta(days=13) < at - START <= GIVE_UP_AFTER


@given(attempts=st.integers(1, 60), elapsed=st.timedeltas(timedelta(0), timedelta(days=40)))
def test_a_delivery_is_given_up_after_both_its_days_and_its_attempts_are_used_up(
    attempts: int, elapsed: timedelta
) -> None:
    due_at = next_attempt(attempts, START, START + elapsed)
    if due_at is None:
        assert attempts >= 20
        assert elapsed > timedelta(days=13)
    else:
        assert START + elapsed < due_at
        assert attempts < 20 or due_at <= START + GIVE_UP_AFTER


@given(pauses=st.lists(st.timedeltas(timedelta(0), timedelta(days=60)), min_size=19, max_size=19))
def test_nineteen_failed_attempts_are_followed_by_another_however_late_they_were(pauses: list[timedelta]) -> None:
    at = START
    for attempts, pause in enumerate(pauses, start=1):
        due_at = next_attempt(attempts, START, at)
        assert due_at is not None
        at = due_at + pause


def test_a_delivery_that_arrived_is_done() -> None:
    step = progress(a_delivery(), Outcome(Verdict.DELIVERED), START)
    assert (step.state, step.next_attempt_at, step.disable_endpoint) == (DeliveryState.DELIVERED, None, False)


def test_a_first_failure_waits_five_seconds() -> None:
    step = progress(a_delivery(), Outcome(Verdict.RETRY), START)
    assert (step.state, step.next_attempt_at) == (DeliveryState.PENDING, START + timedelta(seconds=5))


def test_an_endpoint_that_failed_for_fourteen_days_is_disabled() -> None:
    step = progress(a_delivery(attempts=20, first=START), Outcome(Verdict.RETRY), START + timedelta(days=13, hours=1))
    assert (step.state, step.disable_endpoint) == (DeliveryState.FAILED, True)


def test_an_endpoint_that_is_gone_is_disabled_at_once() -> None:
    step = progress(a_delivery(), Outcome(Verdict.GONE), START)
    assert (step.state, step.disable_endpoint) == (DeliveryState.FAILED, True)


def test_a_permanently_refused_email_fails_and_disables_nothing() -> None:
    step = progress(a_delivery(Channel.EMAIL), Outcome(Verdict.FAILED), START)
    assert (step.state, step.disable_endpoint) == (DeliveryState.FAILED, False)
    step = progress(a_delivery(Channel.EMAIL, 20, START), Outcome(Verdict.RETRY), START + timedelta(days=14))
    assert (step.state, step.disable_endpoint) == (DeliveryState.FAILED, False)
