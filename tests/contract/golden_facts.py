"""The facts behind the golden checks: agencies and people in every state, and what they have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from muster_contracts.entitlements import AccessMode, Anchor, QuotaPeriod, QuotaScope
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.snapshots import FurtherUse, Own
from muster_entitlements.domain.windows import Window

START = datetime(2025, 8, 6, tzinfo=UTC)
TRIAL_END = datetime(2025, 10, 5, tzinfo=UTC)
END = datetime(2026, 8, 6, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

INSTANTS = (START - INSTANT, START, TRIAL_END - INSTANT, TRIAL_END, END - INSTANT, END)

OPEN = Pool(
    agency_id="NASA",
    enrollment_id="enr_1",
    starts_at=START,
    ends_at=END,
    suspended=False,
    withdrawn_at=None,
    ended=False,
    cap=100,
    in_use=5,
    limit_met=False,
    revision=41,
    generation=2,
    revoking=0,
)

POOLS = (
    OPEN,
    replace(OPEN, agency_id="DOE", suspended=True),
    replace(OPEN, agency_id="EPA", withdrawn_at=TRIAL_END, ends_at=TRIAL_END),
    replace(OPEN, agency_id="HHS", ended=True),
    replace(OPEN, agency_id="DOD-USAF", withdrawn_at=TRIAL_END, suspended=True, ended=True),
)

# Grants go to each agency, and to one of its people, whose seat is in a state that allows use.
GRANTED = SeatState.ACTIVE
SOON, LATER = START + timedelta(days=30), START + timedelta(days=90)

# The catalog's quotas of the features whose access is a quota.
QUOTAS: Mapping[str, Quota] = {
    "deep-research": Quota(limit=25),
    "by-seat": Quota(limit=3),
    "used-up": Quota(limit=0),
    "shared": Quota(limit=30, per=QuotaScope.AGENCY),
    "soft": Quota(limit=5, hard=False, per=QuotaScope.AGENCY),
    "monthly": Quota(limit=4),
    "rolling": Quota(limit=4, period=QuotaPeriod.ANCHOR),
}

# The seats in these states have been used, and their trials have begun.
BEGAN_AT = START + timedelta(days=14, hours=3, microseconds=1)
BEGUN = {SeatState.ACTIVE: BEGAN_AT, SeatState.SUSPENDED: START - timedelta(days=100)}

HELD: list[SeatState] = [state for state in SeatState if state is not SeatState.REVOKED]


def grants_of(pool: Pool) -> tuple[Grant, ...]:
    """A grant of each kind."""

    def grant(
        feature: str,
        mode: AccessMode = AccessMode.UNLIMITED,
        subject_ref: str | None = None,
        starts_at: datetime = TRIAL_END,
        ends_at: datetime | None = None,
    ) -> Grant:
        quota = 7 if mode is AccessMode.QUOTA else None
        return Grant("grt_1", pool.agency_id, feature, subject_ref, mode, quota, starts_at, ends_at, "pilot")

    own = granted_to(pool)
    return (
        grant("advanced-voice-mode", ends_at=LATER),
        grant("beside-the-catalog", AccessMode.QUOTA, starts_at=SOON),
        grant("deep-research", AccessMode.QUOTA, own, SOON, LATER),
        grant("advanced-voice-mode", AccessMode.QUOTA, own, LATER - timedelta(days=5)),
    )


def uses_of(pool: Pool) -> tuple[PublishedUse, ...]:
    """What a person has used of their quotas, and what the whole agency has."""
    own = granted_to(pool)

    def use(subject_ref: str, feature: str, used: int, charged: int, ends_at: datetime, days: int = 27) -> PublishedUse:
        starts_at = ends_at - timedelta(days=days)
        return PublishedUse(pool.agency_id, subject_ref, feature, used, charged, 25, starts_at, ends_at)

    return (
        use(own, "advanced-voice-mode", 9, 6, LATER - timedelta(days=2)),
        use(own, "deep-research", 13, 13, TRIAL_END + timedelta(days=27)),
        use("", "shared", 33, 31, LATER, days=60),
        use(own, "shared", 3, 3, LATER),  # when its quota was each person's
        use("", "soft", 6, 5, LATER),
    )


def further_of(pool: Pool) -> tuple[tuple[str, FurtherUse], ...]:
    """Uses granted beyond quotas: to whom, and which."""
    week = timedelta(days=7)
    return (
        (granted_to(pool), FurtherUse("deep-research", TRIAL_END + week, TRIAL_END + 2 * week)),
        ("", FurtherUse("shared", SOON, SOON + week)),
        (granted_to(pool), FurtherUse("shared", START, None)),  # which no quota of the agency asks
        ("", FurtherUse("used-up", TRIAL_END, LATER)),  # which anyone may use
    )


def granted_to(pool: Pool) -> str:
    """The agency's person with personal grants and uses."""
    return subject(POOLS.index(pool) * 16 + HELD.index(GRANTED))


def windows_of(pool: Pool) -> dict[str, Window]:
    """A window of each kind, by feature."""

    def window(
        feature: str, ends_at: datetime, after: AccessMode, quota: int | None = None, starts_at: datetime = START
    ) -> Window:
        return Window(
            window_id=f"win_{feature}",
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature,
            trial=ends_at != END,
            mode=AccessMode.UNLIMITED,
            starts_at=starts_at,
            ends_at=ends_at,
            mode_after=after,
            monthly_quota_after=quota,
            catalog_number=1,
        )

    windows = [
        window("advanced-voice-mode", TRIAL_END, AccessMode.NONE),
        window("deep-research", TRIAL_END, AccessMode.QUOTA, 25),
        window("frontier-models", END, AccessMode.NONE),
        window("later", END, AccessMode.NONE, starts_at=TRIAL_END),
        window("used-up", START, AccessMode.QUOTA, 0),
        window("shared", START, AccessMode.QUOTA),
        window("soft", START, AccessMode.QUOTA),
        replace(window("monthly", END, AccessMode.NONE), mode=AccessMode.QUOTA),
        replace(window("rolling", END, AccessMode.NONE), mode=AccessMode.QUOTA),
        replace(window("with-grace", TRIAL_END, AccessMode.NONE), grace_days=10),
        replace(window("by-seat", END, AccessMode.QUOTA, 3), anchor=Anchor.SEAT, seat_days=45, grace_days=5),
        replace(window("by-seat-later", END, AccessMode.NONE, starts_at=TRIAL_END), anchor=Anchor.SEAT, seat_days=10),
        replace(window("by-seat-long", LATER, AccessMode.NONE), trial=False, anchor=Anchor.SEAT, seat_days=3660),
    ]
    return {window.feature: window for window in windows}


def subject(number: int) -> str:
    """A reference."""
    return f"sub_01987b3e00007000800000000000{number:04x}"


def own_of(pool: Pool, subject_ref: str, grants: Sequence[Grant]) -> Own:
    """What a person has, or the whole agency."""
    uses = tuple(use for use in uses_of(pool) if use.subject_ref == subject_ref)
    return Own(tuple(grants), uses, tuple(each for whose, each in further_of(pool) if whose == subject_ref))
