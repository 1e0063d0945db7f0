"""Charging: what pays for uses, however they are split into charges."""

import random
from bisect import bisect_right
from dataclasses import replace
from datetime import datetime, timedelta

from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.charges import Charge, DatedUse, Limited, charge_in_time
from muster_entitlements.domain.quotas import EXCEEDED, WHOLE_AGENCY, QuotaGrant, available
from tests.unit.entitlements.test_quotas import AT, grant, total


def test_the_quota_pays_first_then_grants_by_priority_and_expiry() -> None:
    soon, late = AT + timedelta(days=1), AT + timedelta(days=9)
    grants = [grant(1, 5, 1, soon), grant(5, 1, ends_at=late), grant(4, 5), grant(2, 4, ends_at=late)]
    grants.append(grant(3, 5, ends_at=soon))
    over = QuotaGrant("NASA", "qgr_0", "deep-research", "sub_1", 99, 0, -1, AT - timedelta(days=2), AT)
    count = Charge(Quota(limit=10), total(used=8), 14, AT).paid_by([*grants, over])
    spent = [(each.grant_id, each.spent) for each in count.spent]  # by priority, end, and ID
    assert spent == [("qgr_3", 5), ("qgr_2", 4), ("qgr_5", 1), ("qgr_4", 2)]
    assert (count.total.used, count.total.granted, count.total.excess) == (22, 12, 0)
    assert available(Quota(limit=10), total(used=8), [*grants, over], AT) == 22


def test_nothing_is_paid_for_twice_however_uses_are_split() -> None:
    """One charge for many uses ends like many charges for a few each."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(200):
        quota = Quota(limit=chance.randrange(30))
        grants = {f"qgr_{n}": grant(n, chance.randrange(1, 9), chance.randrange(3)) for n in range(3)}
        amounts = [chance.randrange(1, 9) for _ in range(8)]
        once = Charge(quota, total(), sum(amounts), AT).paid_by(list(grants.values()))
        sum_ = total()
        for amount in amounts:
            count = Charge(quota, sum_, amount, AT).paid_by(list(grants.values()))
            grants |= {each.grant_id: each for each in count.spent}
            sum_ = count.total
        assert sum_ == once.total
        assert {g.grant_id: g.spent for g in grants.values() if g.spent} == {g.grant_id: g.spent for g in once.spent}
        assert sum_.used == min(sum(amounts), quota.limit) + sum_.granted + sum_.excess


def test_a_batch_of_uses_is_paid_for_as_if_each_came_alone_in_order_of_time() -> None:
    """Between the uses, grants begin and end, and the quota changes; for a while, there is none."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def hour(first: int = 0) -> datetime:
        return AT + timedelta(hours=chance.randrange(first, 24))

    for _ in range(200):
        quotas = [Quota(limit=chance.randrange(20)), None, Quota(limit=chance.randrange(20))]
        changes = sorted([hour(1), hour(1)])
        grants = [replace(grant(n, chance.randrange(1, 9)), starts_at=hour(), ends_at=hour(1)) for n in range(4)]
        instants = [AT, *(hour() for _ in range(8))]
        uses = [DatedUse(at, chance.randrange(1, 9), quotas[bisect_right(changes, at)]) for at in instants]
        sum_, known, charged = total(), {each.grant_id: each for each in grants}, total()
        for at, amount, quota in sorted(uses, key=lambda use: use.at):
            if quota is None:
                sum_ = sum_._replace(used=sum_.used + amount)
                continue
            count = Charge(quota, sum_, amount, at).paid_by(list(known.values()))
            known |= {each.grant_id: each for each in count.spent}
            sum_ = charged = count.total
        [counted] = charge_in_time([Limited(total(), uses)], grants)
        assert counted[-1][1].total == charged
        spent = {each.grant_id: each for _, count in counted for each in count.spent}
        assert {**{each.grant_id: each for each in grants}, **spent} == known
    alike = Limited(total(), [DatedUse(at, 1, quotas[0]) for at in instants])
    assert [len(charged) for charged in charge_in_time([alike], [])] == [1]


def test_a_shared_grant_pays_for_the_earliest_uses_whoever_made_them() -> None:
    quota, people = Quota(limit=1), [total()._replace(subject_ref=f"sub_{number}") for number in range(4)]
    limited = [
        Limited(person, [DatedUse(AT - timedelta(hours=number), 2, quota)]) for number, person in enumerate(people)
    ]
    shared = [replace(grant(1, 2), subject_ref=WHOLE_AGENCY, starts_at=AT - timedelta(days=1))]
    counted = charge_in_time(limited, shared)
    assert [charged[-1][1].excess for charged in counted] == [1, 1, 0, 0]
    assert sorted(each.spent for charged in counted for _, count in charged for each in count.spent) == [1, 2]


def test_a_quota_of_0_has_no_thresholds_but_a_higher_one_later_in_the_period_has() -> None:
    nothing, ten = Quota(limit=0), Quota(limit=10)
    paid = Charge(nothing, total(), 1, AT).paid_by([grant(1, 2)])
    assert (paid.thresholds, paid.exceeded, paid.total.told) == ([], False, 0)
    assert Charge(ten, paid.total, 8, AT).paid_by([]).thresholds == [50, 80]

    exceeds = Charge(nothing, total(), 1, AT).paid_by([])
    assert (exceeds.thresholds, exceeds.exceeded, exceeds.total.told) == ([], True, 0)
    again = Charge(ten, exceeds.total, 10, AT).paid_by([])
    assert (again.thresholds, again.exceeded) == ([50, 80, 100], False)  # that is published once per period
    assert again.total.told == EXCEEDED  # so that the earlier release does not publish it either
