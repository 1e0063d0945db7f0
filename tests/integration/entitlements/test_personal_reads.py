"""Who read whose name or address: recorded with the read, or not read at all."""

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.http.application import openapi
from muster_runtime.scheduling import trails
from muster_runtime.service import Service
from tests.integration.entitlements.conftest import START, Entitlements
from tests.support.applications import BUILDERS
from tests.support.services import ServiceRunner

ROUTES = {"GET /v1/agencies/{agency_id}/seats", "GET /v1/agencies/{agency_id}/seats/{seat_id}"}


async def test_a_read_of_names_is_recorded_with_its_reader(entitlements: Entitlements) -> None:
    service = entitlements.service
    service.clock.move(START)
    await entitlements.enroll(cap=10)
    assigned = [(await entitlements.assign(number)).json() for number in range(3)]
    seats = sorted(assigned, key=lambda seat: str(seat["seat_id"]))
    reader = {"Authorization": f"Bearer {service.token('entitlements:read', agency='NASA', subject='ada')}"}

    async def get(path: str, status: int = 200) -> Any:
        response = await service.client.get(f"/v1/agencies/NASA/{path}", headers={**reader, "X-Request-Id": "r-1"})
        assert response.status_code == status, response.text
        return response.json()

    listed = await get("seats?limit=2")
    await get(f"seats/{seats[2]['seat_id']}")
    await get("seats/seat_00000000000000000000000000000000", 404)
    await get("pool")
    assert [seat["email"] is not None for seat in listed["items"]] == [True, True]
    page = (await service.client.get("/v1/personal-reads")).json()
    shown = [{name: entry[name] for name in ("actor", "agency_id", "route", "subject_refs")} for entry in page["items"]]
    refs = [seat["subject_ref"] for seat in seats]
    own = {"actor": "ada", "agency_id": "NASA"}
    assert shown == [
        {**own, "route": "GET /v1/agencies/{agency_id}/seats", "subject_refs": refs[:2]},
        {**own, "route": "GET /v1/agencies/{agency_id}/seats/{seat_id}", "subject_refs": refs[2:]},
    ]
    assert {entry["request_id"] for entry in page["items"]} == {"r-1"}

    # Another agency sees none of it, and a seat that is given back names nobody.
    other = {"Authorization": f"Bearer {service.token('entitlements:audit', agency='DOE')}"}
    assert (await service.client.get("/v1/personal-reads", headers=other)).json()["items"] == []
    revoked = f"seats/{seats[0]['seat_id']}"
    assert (await service.client.post(f"/v1/agencies/NASA/{revoked}/revocation", json={})).status_code == 200
    assert (await get(revoked))["email"] is None
    assert await service.admin.fetchval("select count(*) from personal_read") == 2

    # No record, no data.
    name = await service.admin.fetchval("select current_database()")
    await service.admin.execute(f"alter database {name} set default_transaction_read_only = on")
    await service.admin.execute(
        """
        select pg_terminate_backend(pid)
        from pg_stat_activity
        where usename = 'entitlements_api' and datname = current_database()
        """
    )
    response = await service.client.get("/v1/agencies/NASA/seats", headers=reader)
    assert (response.status_code, "@" in response.text) == (503, False)
    await service.admin.execute(f"alter database {name} reset default_transaction_read_only")

    # It is deleted in time.
    retention = trails.of_personal_reads(365)
    async with service.runtime.database.connection() as connection:
        oldest = await retention.oldest(connection)
        assert oldest == START
        assert await retention.purge(connection, oldest - timedelta(seconds=1), 1_000) == 0
        assert await retention.purge(connection, oldest, 1_000) == 2


async def test_a_client_cannot_store_records_of_reads_without_limit(run_service: ServiceRunner) -> None:
    most = 60  # per minute
    service = await run_service(build, EntitlementsSettings, personal_reads_per_minute=most)
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=10)
    await entitlements.assign(1)
    ada, grace = (
        {"Authorization": f"Bearer {service.token('entitlements:read', agency='NASA', subject=name)}"}
        for name in ("ada", "grace")
    )
    path = "/v1/agencies/NASA/seats"
    answers = [await service.client.get(path, headers=ada) for _ in range(2 * most)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert [answer.status_code for answer in answers[:most]] == [200] * most
    assert refused[0].json()["violated-policies"] == ["personal-reads"]
    assert refused[0].headers["retry-after"] == "1"
    counted = {"service": "entitlements", "quota": "personal-reads"}
    assert REGISTRY.get_sample_value("muster_http_rate_limited_total", counted) == len(refused)
    recorded = await service.admin.fetchval("select count(*) from personal_read")
    assert recorded == len(answers) - len(refused)
    assert (await service.client.get("/v1/agencies/NASA/pool", headers=ada)).status_code == 200
    assert (await service.client.get(path, headers=grace)).status_code == 200


@pytest.mark.parametrize("name", BUILDERS)
def test_each_route_that_answers_with_a_persons_name_or_address_is_known(name: str) -> None:
    build, settings_class = BUILDERS[name]
    service: Service = build(settings_class(environment="sandbox"))
    document = openapi(service)
    found = {
        f"GET {path}"
        for path, operations in document["paths"].items()
        if "get" in operations and "email" in _properties(document, operations["get"]["responses"])
    }
    assert found == (ROUTES if name == "entitlements" else set())


def _properties(document: dict[str, Any], schema: Any) -> set[str]:
    """The names of all properties in a schema and those that it refers to."""
    if isinstance(schema, list):
        return set().union(*(_properties(document, item) for item in schema))
    if not isinstance(schema, dict):
        return set()
    names = set(schema.get("properties", {}))
    if "$ref" in schema:
        names |= _properties(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    return names.union(*(_properties(document, value) for key, value in schema.items() if key != "$ref"))
