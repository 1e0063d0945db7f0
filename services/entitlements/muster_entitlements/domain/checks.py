"""Checks: whether a person may use a feature at an instant, and why."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.grants import Grant, holding
from muster_entitlements.domain.pools import Pool, PoolState
from muster_entitlements.domain.quotas import Used
from muster_entitlements.domain.seats import USABLE, SeatState
from muster_entitlements.domain.windows import Window


class Verdict(StrEnum):
    """Whether the person may use the feature."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why: the first rule that applies, in this order."""

    UNKNOWN = "unknown"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"
    SUSPENDED = "suspended"
    NOT_STARTED = "not_started"
    NO_SEAT = "no_seat"
    SEAT_RESERVED = "seat_reserved"
    SEAT_INVITED = "seat_invited"
    SEAT_SUSPENDED = "seat_suspended"
    SEAT_ASSIGNED = "seat_assigned"
    SEAT_ACTIVE = "seat_active"
    GRANTED = "granted"
    WINDOW_OPEN = "window_open"
    QUOTA = "quota"
    QUOTA_USED_UP = "quota_used_up"
    NO_WINDOW = "no_window"
    WINDOW_CLOSED = "window_closed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a check. It is valid until `valid_until`, unless the revision increases before then."""

    verdict: Verdict
    reason: Reason
    valid_until: datetime | None
    revision: int
    monthly_quota: int | None = None
    limit: int | None = None
    used: int | None = None
    remaining: int | None = None
    resets_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a check depends on. Without a feature, it checks only the seat."""

    pool: Pool | None
    seat: SeatState | None
    feature: str | None
    window: Window | None
    used_on: date | None = None
    """The last day on which the seat was used; None if the seat is not active."""
    grants: tuple[Grant, ...] = ()
    """Grants of the feature to the agency and the person. One of them may take precedence over the window."""
    began_at: datetime | None = None
    """When the seat's trial began; None if it has not."""
    adopted: bool = False
    """Whether the feature was used with the seat before; known only in the check of a single person."""

    def is_first_use_on(self, today: date) -> bool:
        """Whether a use today would be the seat's first of the day, or activate it."""
        return self.used_on is None or self.used_on < today


def check(question: Question, now: datetime) -> Answer:
    """Answer a check at an instant."""
    pool, window = question.pool, question.window
    if pool is None:
        return Answer(Verdict.REFUSED, Reason.UNKNOWN, None, 0)
    answer = Answer(Verdict.REFUSED, Reason.NO_SEAT, _next_change(question, pool, now), pool.revision)
    state = pool.state(now)
    if state is not PoolState.OPEN:
        return replace(answer, reason=Reason(state.value))
    if question.seat is None or question.seat is SeatState.REVOKED:
        return answer
    if question.seat not in USABLE:
        return replace(answer, reason=Reason(f"seat_{question.seat}"))
    if question.feature is None:
        return replace(answer, verdict=Verdict.ALLOWED, reason=Reason(f"seat_{question.seat}"))
    if (grant := holding(question.grants, now)) is not None:
        reason = Reason.QUOTA if grant.mode is AccessMode.QUOTA else Reason.GRANTED
        return replace(answer, verdict=Verdict.ALLOWED, reason=reason, monthly_quota=grant.monthly_quota)
    if window is None:
        return replace(answer, reason=Reason.NO_WINDOW)
    return _through_window(answer, window, question.began_at, now)


@dataclass(frozen=True, slots=True)
class Register:
    """What all checks of one agency depend on: its windows by feature, and the seats of the people to check.

    `grants` are those to the agency and to these people.
    """

    pool: Pool | None
    windows: Mapping[str, Window]
    seats: Mapping[str, SeatState]
    grants: Sequence[Grant] = ()
    begun: Mapping[str, datetime] = field(default_factory=dict)
    """When the trials of these people's seats began, if a window is anchored on seats."""


def check_all(
    register: Register, pairs: Iterable[tuple[str, str | None]], now: datetime
) -> Iterator[tuple[Question, Answer]]:
    """Answer the check of each subject and feature lazily, in order.

    An answer depends only on the seat's state, the start of its trial, the feature, and who has grants of it. So many
    pairs share few answers.
    """
    granted: defaultdict[tuple[str | None, str | None], list[Grant]] = defaultdict(list)
    for grant in register.grants:
        granted[grant.subject_ref, grant.feature].append(grant)
    of_agency = {feature: tuple(grants) for (owner, feature), grants in granted.items() if owner is None}
    answers: dict[tuple[SeatState | None, str | None, datetime | None, str | None], tuple[Question, Answer]] = {}
    for subject_ref, feature in pairs:
        seat, began_at = register.seats.get(subject_ref), register.begun.get(subject_ref)
        owner = subject_ref if (subject_ref, feature) in granted else None
        kind = seat, feature, began_at, owner
        if kind not in answers:
            window = register.windows.get(feature) if feature else None
            grants = of_agency.get(feature, ())
            if owner is not None:
                grants = (*granted[owner, feature], *grants)
            question = Question(register.pool, seat, feature, window, grants=grants, began_at=began_at)
            answers[kind] = question, check(question, now)
        yield answers[kind]


def count(answer: Answer, used: Used, quota: Quota) -> Answer:
    """Add a quota and its counted use to the answer. A quota that is enforced and used up refuses."""
    counted = replace(
        answer,
        monthly_quota=quota.monthly,
        limit=used.limit,
        used=used.used,
        remaining=used.remaining,
        resets_at=used.resets_at,
    )
    if not quota.enforced:
        return counted
    if used.remaining:
        return replace(counted, valid_until=_first((answer.valid_until, used.changes_at)))
    until = _first((answer.valid_until, used.changes_at, used.resets_at))
    return replace(counted, verdict=Verdict.REFUSED, reason=Reason.QUOTA_USED_UP, valid_until=until)


def _through_window(answer: Answer, window: Window, began_at: datetime | None, now: datetime) -> Answer:
    match window.access(now, began_at):
        case AccessMode.UNLIMITED:
            return replace(answer, verdict=Verdict.ALLOWED, reason=Reason.WINDOW_OPEN)
        case AccessMode.QUOTA:
            return replace(
                answer, verdict=Verdict.ALLOWED, reason=Reason.QUOTA, monthly_quota=window.monthly_quota_after
            )
        case AccessMode.NONE:
            return replace(answer, reason=Reason.WINDOW_CLOSED)


def _next_change(question: Question, pool: Pool, now: datetime) -> datetime | None:
    """The next instant at which the answer may change even if the entitlements do not."""
    if pool.is_over:
        return None
    instants = [pool.starts_at, pool.ends_at]
    if (window := question.window) is not None:
        instants += window.starts_at, window.ends_at, window.closes_at(question.began_at)
    for grant in question.grants:
        instants += (instant for instant in (grant.starts_at, grant.ends_at, grant.revoked_at) if instant is not None)
    return _first_after(now, instants)


def _first_after(now: datetime, instants: Iterable[datetime]) -> datetime | None:
    return _first(instant for instant in instants if instant > now)


def _first(instants: Iterable[datetime | None]) -> datetime | None:
    return min((instant for instant in instants if instant is not None), default=None)
