"""A plan of many features: each is processed once, and other work continues meanwhile."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from muster_entitlements.domain import plans
from muster_entitlements.domain.catalog import Catalog
from muster_entitlements.domain.plans import effects
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.rollouts import Change, adopt
from tests.support.turns import counted_turns
from tests.unit.entitlements.test_plans import numbered
from tests.unit.entitlements.test_rollouts import catalog, feature, opened
from tests.unit.entitlements.test_windows_and_checks import POOL, START


async def test_many_graces_that_end_in_turn_cost_each_feature_one_turn_and_let_other_tasks_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [f"f{number}" for number in range(200)]
    first = catalog(1, *(feature(key, 10, grace_days=20 + day) for day, key in enumerate(keys)))
    version = catalog(2, *(feature(key, mode="none") for key in keys))
    adopted = 0

    def counted(pool: Pool, catalog: Catalog, *rest: Any) -> Iterator[Change]:
        nonlocal adopted
        adopted += len(catalog.features)
        return adopt(pool, catalog, *rest)

    monkeypatch.setattr(plans, "adopt", counted)
    async with counted_turns() as turns:
        await effects(POOL, version, first, opened(first), {}, START + timedelta(days=12), numbered(first, version))
    # Once of each course, then at the end of its grace.
    assert adopted == 3 * 200
    assert turns() > 5
