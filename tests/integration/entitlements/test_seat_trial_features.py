"""Two features with trials of single seats in one agency: each is announced and ends by itself."""

from datetime import timedelta
from typing import Any

from muster_contracts.entitlements import SeatTrialExpired, SeatTrialsEndingSoon
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY, published
from tests.integration.entitlements.test_catalog import publish
from tests.integration.entitlements.test_seat_trials import CANVAS, activate
from tests.integration.entitlements.test_trials import pass_time

# Its notice is due at the same midnight as the first one of Canvas.
SKETCH: dict[str, Any] = CANVAS | {"key": "sketch", "name": "Sketch", "trial_days": 37, "ends_soon_days": [14]}


async def test_each_feature_announces_the_ends_of_its_own_trials(entitlements: Entitlements) -> None:
    await publish(entitlements, [CANVAS, SKETCH], "new-agencies")
    await entitlements.enroll(cap=5)
    noon = START + timedelta(hours=12)
    for person, days in (("ada", 0), ("bob", 0), ("cid", 3)):
        await activate(entitlements, person, noon + days * DAY)
    await pass_time(entitlements, noon + 41 * DAY)
    notices = [
        (event.data.feature, (event.envelope.time - START).days, [(each.days_left, each.seats) for each in ending])
        for event in await published(entitlements, SeatTrialsEndingSoon, 6)
        for ending in [event.data.ending]
    ]
    assert sorted(notices) == [
        ("canvas", 23, [(7, 2)]),
        ("canvas", 26, [(7, 1)]),
        ("canvas", 29, [(1, 2)]),
        ("canvas", 32, [(1, 1)]),
        ("sketch", 23, [(14, 2)]),
        ("sketch", 26, [(14, 1)]),
    ]
    ends = await published(entitlements, SeatTrialExpired, 6)
    assert sorted((event.data.feature, event.envelope.time - noon) for event in ends) == [
        *(("canvas", days * DAY) for days in (30, 30, 33)),
        *(("sketch", days * DAY) for days in (37, 37, 40)),
    ]
