"""How a check is answered: the rules of Muster's own checks, in their order."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from muster_contracts.entitlements import AccessMode, AgencyAccess, GrantedAccess, QuotaUse, SeatStanding

# What is granted: the feature, the mode, the monthly quota, the start, and the end, if there is one.
Grant = tuple[str, str, int | None, datetime, datetime | None]
Grants = tuple[Grant, ...]

# What is used of a quota: the feature, how much, of how much, and the end of the period.
Use = tuple[str, int, int, datetime]


class Own(NamedTuple):
    """What one person has beside their seat: grants, and the use of quotas."""

    grants: Grants = ()
    uses: tuple[Use, ...] = ()


NOTHING = Own()

# A feature's phases: the start of each, its mode, and its monthly quota.
Phases = Sequence[tuple[datetime, str, int | None]]

# The reason of a grant by its mode; one of another mode, which is not known, gives nothing.
_GRANTED: Mapping[str, str] = {AccessMode.UNLIMITED.value: "granted", AccessMode.QUOTA.value: "quota"}

_FOREVER = datetime.max.replace(tzinfo=UTC)

# With a seat of these states a person can use features.
_USABLE = frozenset({SeatStanding.ASSIGNED.value, SeatStanding.ACTIVE.value})


class Verdict(StrEnum):
    """Whether the person may use the feature."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Answer(NamedTuple):
    """The answer to a check, as the entitlements service gives it.

    `reason` is the first rule that applies, such as `window_open` or `no_seat`. The answer holds until `valid_until`
    (None: no end is known), unless the agency's revision increases before. If the reason is `quota`, `used` of `limit`
    uses are known, until `resets_at`: as of the last threshold that was crossed, so it may be more; None before the
    first threshold.
    """

    verdict: Verdict
    reason: str
    valid_until: datetime | None
    revision: int
    monthly_quota: int | None = None
    limit: int | None = None
    used: int | None = None
    resets_at: datetime | None = None


class Terms:
    """What checks of one agency depend on, taken from its record."""

    __slots__ = (
        "_answers",
        "closed",
        "ends_at",
        "features",
        "generation",
        "grants",
        "starts_at",
        "suspended",
        "trials",
        "uses",
        "withdrawn",
    )

    def __init__(self, access: AgencyAccess) -> None:
        self.generation = access.generation
        self.starts_at = access.starts_at
        self.ends_at = access.ends_at
        self.suspended = access.suspended
        self.withdrawn = access.withdrawn_at is not None
        self.closed = self.withdrawn or access.ended
        # Thousands of people are answered alike: the last answer by seat and feature, and when it holds.
        self._answers: dict[tuple[str | None, str | None], tuple[datetime, datetime, Answer]] = {}
        self.features: Mapping[str, Phases] = {
            timeline.feature: tuple(
                (phase.starts_at, str(phase.mode), phase.monthly_quota) for phase in timeline.phases
            )
            for timeline in access.features
        }
        self.trials: Mapping[str, timedelta] = {
            timeline.feature: timedelta(days=timeline.seat_days) for timeline in access.features if timeline.seat_days
        }
        self.grants: dict[str, Grants] = {}
        for grant in to_grants(access.grants):
            self.grants[grant[0]] = (*self.grants.get(grant[0], ()), grant)
        self.uses = to_uses(access.quotas)

    def answer(
        self,
        seat: str | None,
        feature: str | None,
        now: datetime,
        revision: int,
        own: Own = NOTHING,
        began_at: datetime | None = None,
    ) -> Answer:
        """Answer a check of a person whose seat has this state; None is no seat.

        `began_at` is when the trials of the seat began; None if they have not.
        """
        if own is not NOTHING or (began_at is not None and feature in self.trials):
            return self._decide(seat, feature, now, revision, own, began_at)
        last = self._answers.get((seat, feature))
        if last is not None and last[0] <= now < last[1] and last[2].revision == revision:
            return last[2]
        answer = self._decide(seat, feature, now, revision, NOTHING, None)
        if feature is None or feature in self.features:  # what is asked for may be anything
            until = min(answer.valid_until or _FOREVER, answer.resets_at or _FOREVER)
            self._answers[seat, feature] = (now, until, answer)
        return answer

    def _decide(
        self,
        seat: str | None,
        feature: str | None,
        now: datetime,
        revision: int,
        own: Own,
        began_at: datetime | None,
    ) -> Answer:
        phases: Phases | None = None
        grants: Grants = ()
        if feature is not None:
            phases = self._phases(feature, began_at)
            # A person's own grants precede their agency's.
            grants = (*(grant for grant in own.grants if grant[0] == feature), *self.grants.get(feature, ()))
        valid_until = None if self.closed else self._next_change(phases, grants, now)
        if (refusal := self._refusal(now)) is not None:
            return Answer(Verdict.REFUSED, refusal, valid_until, revision)
        if seat is None:
            return Answer(Verdict.REFUSED, "no_seat", valid_until, revision)
        if seat not in _USABLE:
            return Answer(Verdict.REFUSED, f"seat_{seat}", valid_until, revision)
        if feature is None:
            return Answer(Verdict.ALLOWED, f"seat_{seat}", valid_until, revision)
        for _, mode, quota, starts_at, ends_at in grants:
            if starts_at <= now and (ends_at is None or now < ends_at) and mode in _GRANTED:
                answer = Answer(Verdict.ALLOWED, _GRANTED[mode], valid_until, revision, quota)
                return self._with_use(answer, feature, own, now)
        if phases is None:
            return Answer(Verdict.REFUSED, "no_window", valid_until, revision)
        return self._with_use(_within(phases, now, valid_until, revision), feature, own, now)

    def _phases(self, feature: str, began_at: datetime | None) -> Phases | None:
        """The phases of a feature. If each seat has a trial of its own, the last phase also begins with its end."""
        phases = self.features.get(feature)
        trial = self.trials.get(feature)
        if not phases or began_at is None or trial is None:
            return phases
        first, (starts_at, mode, quota) = phases[0][0], phases[-1]
        ends_at = max(min(began_at + trial, starts_at), first)
        return (*phases[:-1], (ends_at, mode, quota), phases[-1])

    def _with_use(self, answer: Answer, feature: str, own: Own, now: datetime) -> Answer:
        """The answer with what is known to be used of the quota, the person's or the agency's."""
        if answer.reason == "quota":
            for key, used, limit, ends_at in (*own.uses, *self.uses):
                if key == feature and now < ends_at:
                    return answer._replace(limit=limit, used=used, resets_at=ends_at)
        return answer

    def _refusal(self, now: datetime) -> str | None:
        """Why the agency as a whole has no access; None if it has."""
        if self.withdrawn:
            return "withdrawn"
        if self.closed or now >= self.ends_at:
            return "ended"
        if self.suspended:
            return "suspended"
        return "not_started" if now < self.starts_at else None

    def _next_change(self, phases: Phases | None, grants: Grants, now: datetime) -> datetime | None:
        """The next instant at which the answer may change by itself."""
        instants = [self.starts_at, self.ends_at, *(starts_at for starts_at, _, _ in phases or ())]
        for _, _, _, starts_at, ends_at in grants:
            instants += [starts_at] if ends_at is None else [starts_at, ends_at]
        return min((instant for instant in instants if instant > now), default=None)


def to_grants(grants: Iterable[GrantedAccess]) -> Grants:
    """What a record says of grants."""
    return tuple((each.feature, str(each.mode), each.monthly_quota, each.starts_at, each.ends_at) for each in grants)


def to_uses(quotas: Iterable[QuotaUse]) -> tuple[Use, ...]:
    """What a record says of used quotas."""
    return tuple((each.feature, each.used, each.quota, each.period_ends_at) for each in quotas)


def _within(phases: Phases, now: datetime, valid_until: datetime | None, revision: int) -> Answer:
    """Answer by the phase that has started last. A mode that is not known allows nothing."""
    mode, quota = AccessMode.NONE.value, None
    for starts_at, phase_mode, phase_quota in phases:
        if starts_at <= now:
            mode, quota = phase_mode, phase_quota
    if mode == AccessMode.UNLIMITED:
        return Answer(Verdict.ALLOWED, "window_open", valid_until, revision)
    if mode == AccessMode.QUOTA:
        return Answer(Verdict.ALLOWED, "quota", valid_until, revision, quota)
    return Answer(Verdict.REFUSED, "window_closed", valid_until, revision)
