"""A copy can read what a renewal reports about use."""

from datetime import timedelta

from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from tests.integration.entitlements.conftest import END, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, publish
from tests.integration.entitlements.test_next_terms import renew
from tests.integration.entitlements.test_quota_copies import NOTES
from tests.support.eventually import eventually


async def test_what_a_renewal_reports_about_use_can_be_read(entitlements: Entitlements) -> None:
    whole = {**NOTES, "key": "whole", "quota": {"limit": 10, "per": "agency"}}
    await publish(entitlements, [FRONTIER, NOTES, whole], "new-agencies")
    await entitlements.enroll(cap=2)
    ada = (await entitlements.assign("ada")).json()["subject_ref"]
    entitlements.service.clock.move(END - timedelta(days=2))
    for feature in ("notes", "whole"):
        use = {"subject": ada, "feature": feature, "amount": 6}
        assert (await entitlements.post("usage/consume", use)).status_code == 200
    await renew(entitlements)

    async def told() -> bool:
        query = "select bool_and(ends_at > $1) from quota_use"
        left = await entitlements.service.admin.fetchval("select count(*) from outbox")
        return bool(left == 0 and await entitlements.service.admin.fetchval(query, END))

    await eventually(told)
    for kind in (AgencyAccess, SubjectAccess):
        assert all(event.envelope.correlation_id for event in await entitlements.service.published(kind))
