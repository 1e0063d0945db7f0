"""Answers checks: the same rules as Muster's own checks, in the same order."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from muster_contracts.entitlements import (
    AccessMode,
    AgencyAccess,
    FurtherUses,
    GrantedAccess,
    QuotaScope,
    QuotaUse,
    SeatStanding,
)

# A grant: the feature, the mode, the monthly quota, the start, and the end, if any.
Grant = tuple[str, str, int | None, datetime, datetime | None]
Grants = tuple[Grant, ...]

# The use of a quota: the feature, how much is used, how much of that no grant pays for, and the period's start and end.
Use = tuple[str, int, int, datetime, datetime]

# Granted uses beyond a quota, some of them left: the feature, the start, and the end, if any.
Further = tuple[str, datetime, datetime | None]


class Own(NamedTuple):
    """What one person has besides their seat: grants, the use of quotas, and uses beyond them."""

    grants: Grants = ()
    uses: tuple[Use, ...] = ()
    further: tuple[Further, ...] = ()


NOTHING = Own()

# A quota: its limit, whether it is enforced, and whether it applies to the whole agency.
Quota = tuple[int, bool, bool]

# A feature's phases: the start of each, its mode, and its monthly quota.
Phases = Sequence[tuple[datetime, str, int | None]]

# The reason for each mode of a grant. A grant of an unknown mode gives nothing.
_GRANTED: Mapping[str, str] = {AccessMode.UNLIMITED.value: "granted", AccessMode.QUOTA.value: "quota"}

_FOREVER = datetime.max.replace(tzinfo=UTC)

# The states in which a seat allows a person to use features.
_USABLE = frozenset({SeatStanding.ASSIGNED.value, SeatStanding.ACTIVE.value})


class Verdict(StrEnum):
    """Whether the person may use the feature."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Answer(NamedTuple):
    """The answer to a check, as the entitlements service gives it.

    `reason` is the first rule that applies, such as `window_open` or `no_seat`. The answer is valid until `valid_until`
    (None: no end is known), unless the agency's revision increases first. For a quota, `limit` is its limit, and `used`
    is what is known to be used until `resets_at`. It is as of the last threshold that was crossed, so it may be more;
    None before the first one.
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
        "further",
        "generation",
        "grants",
        "quotas",
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
        # Thousands of people get the same answer. This caches the last answer by seat, feature, and whether the seat's
        # trial is over, with when it is valid. If the trial is not over, the answer also ends with the trial.
        self._answers: dict[tuple[str | None, str | None, bool], tuple[datetime, datetime, Answer]] = {}
        self.features: Mapping[str, Phases] = {
            timeline.feature: tuple(
                (phase.starts_at, str(phase.mode), phase.monthly_quota) for phase in timeline.phases
            )
            for timeline in access.features
        }
        self.trials: Mapping[str, timedelta] = {
            timeline.feature: timedelta(days=timeline.seat_days)
            for timeline in access.features
            if timeline.seat_days and timeline.phases
        }
        self.grants: dict[str, Grants] = {}
        for grant in to_grants(access.grants):
            self.grants[grant[0]] = (*self.grants.get(grant[0], ()), grant)
        self.quotas: Mapping[str, Quota] = {
            timeline.feature: (timeline.quota.limit, timeline.quota.enforced, timeline.quota.per == QuotaScope.AGENCY)
            for timeline in access.features
            if timeline.quota is not None
        }
        self.uses = to_uses(access.quotas)
        self.further = to_further(access.further_uses)

    def answer(
        self,
        seat: str | None,
        feature: str | None,
        now: datetime,
        revision: int,
        own: Own = NOTHING,
        began_at: datetime | None = None,
    ) -> Answer:
        """Answer a check of a person whose seat has this state; None means no seat.

        `began_at` is when the seat's trials began; None if they have not.
        """
        if own is not NOTHING:
            return self._decide(seat, feature, now, revision, own, began_at)
        trial_ends_at = None if began_at is None else self._trial_end(feature, began_at)
        over = trial_ends_at is not None and trial_ends_at <= now
        last = self._answers.get((seat, feature, over))
        if last is not None and last[0] <= now < last[1] and last[2].revision == revision:
            answer = last[2]
        else:
            answer = self._decide(seat, feature, now, revision, NOTHING, began_at if over else None)
            if feature is None or feature in self.features:  # the caller may ask for any name
                self._answers[seat, feature, over] = (now, self._until(answer, now), answer)
        if trial_ends_at is None or over or answer.valid_until is None or answer.valid_until <= trial_ends_at:
            return answer
        return answer._replace(valid_until=trial_ends_at)

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
                return self._counted(answer, feature, own, now, None if quota is None else (quota, True, False))
        if phases is None:
            return Answer(Verdict.REFUSED, "no_window", valid_until, revision)
        answer = _within(phases, now, valid_until, revision)
        return self._counted(answer, feature, own, now, self.quotas.get(feature))

    def _phases(self, feature: str, began_at: datetime | None) -> Phases | None:
        """The phases of a feature.

        If each seat has its own trial, the last phase also begins when the seat's trial ends.
        """
        phases = self.features.get(feature)
        ends_at = None if began_at is None else self._trial_end(feature, began_at)
        if not phases or ends_at is None:
            return phases
        _, mode, quota = phases[-1]
        return (*phases[:-1], (ends_at, mode, quota), phases[-1])

    def _trial_end(self, feature: str | None, began_at: datetime) -> datetime | None:
        """When a seat's trial ends; None if the feature has none."""
        if feature is None or (trial := self.trials.get(feature)) is None:
            return None
        phases = self.features[feature]
        return max(min(began_at + trial, phases[-1][0]), phases[0][0])

    def _counted(self, answer: Answer, feature: str, own: Own, now: datetime, quota: Quota | None) -> Answer:
        """Add to an answer what is known to be used of the quota, by the person or, for its own quota, by the agency.

        Refuses if the quota is enforced and used up, and no further uses are granted. An answer that depends on further
        uses is valid until one of them begins or ends.
        """
        if answer.reason != AccessMode.QUOTA or quota is None:
            return answer
        limit, enforced, shared = quota
        answer = answer._replace(limit=limit)
        charged = 0
        for key, used, without_grant, starts_at, ends_at in self.uses if shared else own.uses:
            if key == feature and starts_at <= now < ends_at:
                answer, charged = answer._replace(used=used, resets_at=ends_at), without_grant
                break
        if not enforced or charged < limit:
            return answer
        granted = self.further if shared else (*own.further, *self.further)
        spans = [(starts_at, ends_at) for key, starts_at, ends_at in granted if key == feature]
        left = any(starts_at <= now and (ends_at is None or now < ends_at) for starts_at, ends_at in spans)
        turns = [instant for span in spans for instant in span if instant is not None and instant > now]
        instants = [answer.valid_until, *turns]
        if left:
            return answer._replace(valid_until=_first(instants))
        return answer._replace(
            verdict=Verdict.REFUSED, reason="quota_used_up", valid_until=_first([*instants, answer.resets_at])
        )

    def _until(self, answer: Answer, now: datetime) -> datetime:
        """How long an answer is valid for everyone who has nothing of their own."""
        instants = [answer.valid_until]
        for _, _, _, starts_at, ends_at in self.uses:
            instants += [starts_at, ends_at]
        return min((instant for instant in instants if instant is not None and instant > now), default=_FOREVER)

    def _refusal(self, now: datetime) -> str | None:
        """Why the agency as a whole has no access; None if it does."""
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


def _first(instants: Iterable[datetime | None]) -> datetime | None:
    return min((instant for instant in instants if instant is not None), default=None)


def to_grants(grants: Iterable[GrantedAccess]) -> Grants:
    """The grants in a record."""
    return tuple((each.feature, str(each.mode), each.monthly_quota, each.starts_at, each.ends_at) for each in grants)


def to_uses(quotas: Iterable[QuotaUse]) -> tuple[Use, ...]:
    """The used quotas in a record."""
    return tuple((each.feature, each.used, each.charged, each.period_starts_at, each.period_ends_at) for each in quotas)


def to_further(further: Iterable[FurtherUses]) -> tuple[Further, ...]:
    """The further uses in a record."""
    return tuple((each.feature, each.starts_at, each.ends_at) for each in further)


def _within(phases: Phases, now: datetime, valid_until: datetime | None, revision: int) -> Answer:
    """Answer according to the latest phase that has started. An unknown mode allows nothing."""
    mode, quota = AccessMode.NONE.value, None
    for starts_at, phase_mode, phase_quota in phases:
        if starts_at <= now:
            mode, quota = phase_mode, phase_quota
    if mode == AccessMode.UNLIMITED:
        return Answer(Verdict.ALLOWED, "window_open", valid_until, revision)
    if mode == AccessMode.QUOTA:
        return Answer(Verdict.ALLOWED, "quota", valid_until, revision, quota)
    return Answer(Verdict.REFUSED, "window_closed", valid_until, revision)
