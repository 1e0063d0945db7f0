"""Deliveries: what is sent to whom, what follows from an attempt, and when the next one is due."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Channel(StrEnum):
    """The channel of a delivery."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


# The rule name of all webhook deliveries.
WEBHOOK_RULE = "webhook"


@dataclass(frozen=True, slots=True)
class Intent:
    """A message to send: one per event, rule, and recipient, however often the event arrives.

    `recipient` is a role, a person's reference, or a webhook's ID. `audience` is the agency that the recipient belongs
    to; `*` for the operators'. A `missed` intent is for a disabled endpoint: it is not attempted, but kept for a
    replay.
    """

    agency_id: str
    event_id: str
    event_type: str
    correlation_id: str
    rule: str
    channel: Channel
    recipient: str
    audience: str
    payload: bytes
    missed: bool = False
    traceparent: str | None = None

    @property
    def delivery_id(self) -> str:
        """The public ID. It is derived from the intent, so a recreated delivery keeps it."""
        intent = f"{self.event_id}|{self.rule}|{self.recipient}"
        return "dlv_" + hashlib.sha256(intent.encode()).hexdigest()[:32]


# A lane is (agency, recipient). Its deliveries are attempted strictly in order.
Lane = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A pending delivery at the head of its lane.

    Its round began with its first attempt, or with the first attempt after a retry or a replay.
    """

    id: str
    agency_id: str
    event_type: str
    correlation_id: str
    rule: str
    channel: Channel
    recipient: str
    audience: str
    payload: bytes
    attempts: int
    round_attempts: int
    round_started_at: datetime | None
    traceparent: str | None = None

    @property
    def lane(self) -> Lane:
        """The lane of the delivery."""
        return self.agency_id, self.recipient


class Verdict(StrEnum):
    """The result of an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"  # the receiver no longer wants any events


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt, and why; `detail` contains no personal data.

    `enabled_at` is when the endpoint was last enabled again: earlier failures no longer count. `without_role` says that
    nobody has the recipient's role.
    """

    verdict: Verdict
    detail: str | None = None
    enabled_at: datetime | None = None
    without_role: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A delivery after an attempt: its state, whether to disable its endpoint, and whether a new round began."""

    state: DeliveryState
    next_attempt_at: datetime | None = None
    disable_endpoint: bool = False
    new_round: bool = False


# The example schedule of the Standard Webhooks specification, "Deliverability and reliability".
RETRY_DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
)
LAST_RETRY_DELAY = timedelta(hours=24)
GIVE_UP_AFTER = timedelta(days=14)


def next_attempt(attempts: int, started_at: datetime, now: datetime) -> datetime | None:
    """The next attempt after `attempts` failures since `started_at`, the latest at `now`; None if the delivery fails.

    It fails only after both the time and the attempts of the schedule are used up, so an outage of Muster does not
    count.
    """
    delays = [*RETRY_DELAYS, *[LAST_RETRY_DELAY] * (attempts - len(RETRY_DELAYS))][:attempts]
    due_at = now + delays[-1]
    given_up = sum(delays, timedelta()) > GIVE_UP_AFTER and due_at > started_at + GIVE_UP_AFTER
    return None if given_up else due_at


def progress(delivery: Delivery, outcome: Outcome, now: datetime) -> Progress:
    """The state of a delivery after an attempt at `now`."""
    if outcome.verdict is Verdict.DELIVERED:
        return Progress(DeliveryState.DELIVERED)
    attempts, started_at = delivery.round_attempts, delivery.round_started_at
    new_round = started_at is None or (outcome.enabled_at is not None and started_at < outcome.enabled_at)
    if started_at is None or new_round:
        attempts, started_at = 0, now
    if outcome.verdict is Verdict.RETRY:
        due_at = next_attempt(attempts + 1, started_at, now)
        if due_at is not None:
            return Progress(DeliveryState.PENDING, due_at, new_round=new_round)
    given_up = outcome.verdict in (Verdict.RETRY, Verdict.GONE)
    return Progress(DeliveryState.FAILED, disable_endpoint=given_up and delivery.channel is Channel.WEBHOOK)
