"""An operator who looks at a parked record of the directory reads somebody's name and address."""

from muster_contracts.testing import record
from tests.integration.notify.conftest import Notify, contact
from tests.support.eventually import eventually


async def test_a_look_at_a_parked_contact_is_recorded(notify: Notify) -> None:
    service = notify.service
    broken = record(contact())
    await service.producer.put_raw(
        broken.topic, key=broken.key, value=b'{"name": "Ann Example"}', headers=broken.headers
    )
    path = f"/v1/parked/{broken.topic}/NASA"

    async def parked() -> bool:
        return (await service.client.get(path)).status_code == 200

    await eventually(parked)
    assert "Ann Example" in (await service.client.get(path)).text
    reads = (await service.client.get("/v1/personal-reads", params={"agency_id": "NASA"})).json()["items"]
    assert {read["route"] for read in reads} == {"GET /v1/parked/{topic}/{agency_id}"}
    assert reads[-1]["subject_refs"] == [broken.key.decode()]
    assert (reads[-1]["actor"], reads[-1]["agency_id"]) == ("operator", "NASA")
