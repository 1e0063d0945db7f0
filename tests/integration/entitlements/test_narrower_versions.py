"""A version that narrows a feature that is open for the term: its access begins with the next term."""

from datetime import timedelta

import pytest

from muster_contracts.entitlements import FeatureWindowOpened
from tests.integration.entitlements.conftest import END, NEXT_END, Entitlements
from tests.integration.entitlements.lives import published
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish, rolled_out
from tests.integration.entitlements.test_next_terms import publish_next, renew
from tests.integration.entitlements.test_seat_trials import text
from tests.integration.entitlements.test_trials import pass_time
from tests.support.eventually import eventually

DAY = timedelta(days=1)


@pytest.mark.parametrize(("rule", "by_earlier_release"), [("next-term", False), ("now", False), ("now", True)])
async def test_narrower_access_begins_with_the_next_term(
    entitlements: Entitlements, rule: str, by_earlier_release: bool
) -> None:
    """The earlier release left the window as one to extend."""
    narrower = FRONTIER | {"mode": "quota", "quota": {"limit": 5}}
    await entitlements.enroll(cap=2)
    await entitlements.assign("ada")
    plan = {"rule": rule, "features": [narrower, RESEARCH]}
    planned, *_ = (await entitlements.service.client.post("/v1/catalog/plan", json=plan)).json()["features"]
    assert (planned["narrower"], planned["losing"]) == (True, ["NASA"] if rule == "next-term" else [])
    if rule == "now":
        await publish(entitlements, [narrower, RESEARCH])
        await eventually(lambda: rolled_out(entitlements, 2))
    else:
        await publish_next(entitlements, 2, narrower, RESEARCH)
    if by_earlier_release:
        await entitlements.service.admin.execute("update feature_window set renewable = true")
        await entitlements.service.admin.execute("delete from deadline where kind = 'catalog-next-term'")
    await renew(entitlements)
    await pass_time(entitlements, END - DAY)
    answer = await entitlements.check("ada", "frontier-models")
    assert (answer["reason"], answer["valid_until"]) == ("window_open", text(END))
    await pass_time(entitlements, END)
    answer = await entitlements.check("ada", "frontier-models")
    assert (answer["verdict"], answer["reason"], answer["limit"]) == ("allowed", "quota", 5)
    opened = (await published(entitlements, FeatureWindowOpened, 4))[-1].data
    assert (opened.feature, opened.starts_at, opened.ends_at) == ("frontier-models", END, NEXT_END)
