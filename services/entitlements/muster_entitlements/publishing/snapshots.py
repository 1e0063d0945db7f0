"""Turns what an agency and its people have into records of the snapshot topic."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from muster_contracts import encode
from muster_contracts.entitlements import (
    AccessMode,
    AccessPhase,
    AgencyAccess,
    FeatureTimeline,
    FurtherUses,
    GrantedAccess,
    QuotaTerms,
    QuotaUse,
    SubjectAccess,
    SubjectAccessErased,
)
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import HeldSeat
from muster_entitlements.domain.snapshots import NOTHING, FurtherUse, Own
from muster_entitlements.domain.windows import Window

# Stands for a person's reference in a record that many people share.
_PLACE = "{}"


def agency_access(
    pool: Pool, windows: Mapping[str, Window], quotas: Mapping[str, Quota | None], shared: Own
) -> AgencyAccess:
    """The whole access of an agency: its windows and quotas by feature, and what its people share."""
    return AgencyAccess(
        agency_id=pool.agency_id,
        revision=pool.revision,
        generation=pool.generation,
        starts_at=pool.starts_at,
        ends_at=pool.ends_at,
        suspended=pool.suspended,
        withdrawn_at=pool.withdrawn_at,
        ended=pool.ended,
        cap=pool.cap,
        features=[_timeline(window, quotas.get(key)) for key, window in sorted(windows.items())],
        grants=granted(shared.grants),
        quotas=used(shared.uses),
        further_uses=further_uses(shared.further),
    )


def subjects_access(
    pool: Pool, revision: int, seats: Mapping[str, HeldSeat], own: Mapping[str, Own]
) -> dict[str, bytes | None]:
    """The data of SubjectAccess for many people by subject, at a fraction of the model's cost.

    Only people who have something of their `own` are encoded one by one; references need no escaping.
    """

    def written(subject_ref: str, seat: HeldSeat, has: Own = NOTHING) -> bytes:
        access = SubjectAccess(
            agency_id=pool.agency_id,
            subject_ref=subject_ref,
            revision=revision,
            generation=pool.generation,
            seat=seat.state,
            trial_began_at=seat.began_at,
            grants=granted(has.grants),
            quotas=used(has.uses),
            further_uses=further_uses(has.further),
        )
        return encode(access) or b""

    around = {seat: written(_PLACE, seat).split(_PLACE.encode()) for seat in set(seats.values())}
    records: dict[str, bytes | None] = {
        subject_ref: subject_ref.encode().join(around[seat]) for subject_ref, seat in seats.items()
    }
    for subject_ref in own.keys() & seats:
        records[subject_ref] = written(subject_ref, seats[subject_ref], own[subject_ref])
    return records


def access_erased(agency_id: str, subject_ref: str) -> SubjectAccessErased:
    """A person has no seat anymore."""
    return SubjectAccessErased(agency_id=agency_id, subject_ref=subject_ref)


def granted(grants: Iterable[Grant]) -> list[GrantedAccess]:
    """Grants as the topic's records contain them."""
    return [
        GrantedAccess(
            feature=grant.feature,
            mode=grant.mode,
            monthly_quota=grant.monthly_quota,
            starts_at=grant.starts_at,
            ends_at=grant.ends_at,
        )
        for grant in grants
    ]


def used(uses: Iterable[PublishedUse]) -> list[QuotaUse]:
    """Use of quotas as the topic's records contain it."""
    return [
        QuotaUse(
            feature=use.feature,
            used=use.used,
            quota=use.quota,
            charged=use.charged,
            period_starts_at=use.starts_at,
            period_ends_at=use.ends_at,
        )
        for use in uses
    ]


def further_uses(further: Iterable[FurtherUse]) -> list[FurtherUses]:
    """Further uses as the topic's records contain them."""
    return [FurtherUses(feature=each.feature, starts_at=each.starts_at, ends_at=each.ends_at) for each in further]


def _timeline(window: Window, quota: Quota | None) -> FeatureTimeline:
    monthly = window.monthly_quota_after if quota is None else quota.monthly

    def phase(starts_at: datetime, mode: AccessMode) -> AccessPhase:
        return AccessPhase(starts_at=starts_at, mode=mode, monthly_quota=monthly if mode is AccessMode.QUOTA else None)

    phases = [phase(window.starts_at, window.mode)]
    if window.grace_ends_at is not None:
        phases.append(phase(window.ends_at, window.mode))
    phases.append(phase(window.closes_at(), window.mode_after))
    seat_days = None if window.seat_trial is None else window.seat_trial.days
    terms = None if quota is None else QuotaTerms(limit=quota.limit, enforced=quota.enforced, per=quota.per)
    return FeatureTimeline(feature=window.feature, phases=phases, quota=terms, seat_days=seat_days)
