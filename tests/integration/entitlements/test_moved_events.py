"""Events that wait while the epoch is raised get other IDs: an explanation names those that are published."""

from muster_contracts.entitlements import (
    FeatureCatalogPublished,
    FeatureWindowOpened,
    QuotaGranted,
    QuotaThresholdCrossed,
)
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, publish
from tests.integration.entitlements.test_consumption import consume
from tests.integration.entitlements.test_explanations import event_ids, explained, ids
from tests.integration.entitlements.test_usage import LATER
from tests.support.services import ServiceRunner


async def test_an_explanation_names_waiting_events_as_they_are_published(
    front: Entitlements, run_service: ServiceRunner
) -> None:
    service = front.service
    research = RESEARCH | {"trial_days": 60, "monthly_quota_after": 25}
    await publish(front, [FRONTIER, research], "new-agencies")
    await front.enroll(cap=2)
    await front.assign(1)
    service.clock.move(LATER)
    grant = {"feature": "deep-research", "amount": 5, "reason": "pilot"}
    assert (await front.post("quota-grants", grant)).status_code == 201
    assert (await consume(front, 1, 25))[0] == 200
    before = await explained(front, "deep-research")
    raised = await service.client.post("/v1/epoch", json={"reason": "restored from a backup"})
    assert raised.status_code == 200, raised.text

    found = await explained(front, "deep-research")
    await run_service(build, EntitlementsSettings, roles=frozenset({Role.RELAY}), beside=service)
    assert ids(found["window"]) == await event_ids(front, FeatureWindowOpened, "deep-research", 2)
    crossed = await event_ids(front, QuotaThresholdCrossed, "deep-research", len(ids(before["quota"])))
    assert ids(found["quota"]) == crossed != []
    [paying] = found["quota"]["grants"]
    assert ids(paying) == await event_ids(front, QuotaGranted, "deep-research", 1)
    [catalog] = await service.published(FeatureCatalogPublished)
    assert ids(found["catalog"]) == [catalog.envelope.id]
    assert ids(found["enrollment"]) == ids(before["enrollment"])  # another service published it
