"""What could not be counted is bounded: the intake waits, and continues once an operator has discarded some."""

import json
from functools import partial
from typing import Any

import pytest

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.handlers import parked_usage
from muster_entitlements.workers import usage as usage_worker
from muster_entitlements.workers.usage import UsageIntake
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_usage import LATER, used
from tests.integration.entitlements.test_usage_intake import STRUCTURED, count_all, counts, put
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually


async def test_the_intake_waits_while_as_many_records_are_parked_as_may_be(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_usage, "MOST_PARKED", 3)
    monkeypatch.setattr(usage_worker, "RETRY_SECONDS", 0.1)
    waits: list[Exception] = []
    monkeypatch.setattr(usage_worker, "describe", waits.append)
    await entitlements.enroll(cap=5)
    service = entitlements.service
    service.clock.move(LATER)

    async def parked() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await service.client.get("/v1/usage/parked")).json()["items"]
        return items

    async def holds(records: int) -> bool:
        return len(await parked()) == records

    async def warned() -> list[str]:
        health = (await service.client.get("/health/ready")).json()
        return [each for each in health["warnings"] if "the intake waits" in each]

    async def one_is_parked() -> bool:
        health = (await service.client.get("/health/ready")).json()
        return any(each.startswith("1 usage record could not be counted") for each in health["warnings"])

    await put(entitlements, b"{")
    await eventually(one_is_parked)
    await put(entitlements, b"{")
    await eventually(partial(holds, 2))
    assert await warned() == []
    await put(entitlements, b"{")
    await eventually(partial(holds, 3))
    await put(entitlements, used(1))  # what can be counted, is
    await eventually(partial(counts, entitlements, 1))
    await put(entitlements, b"{", used(2))
    await eventually(lambda: len([each for each in waits if "limit of parked records" in str(each)]) > 1)
    assert await eventually(warned)
    assert await holds(3)

    await put(entitlements, used(3, agency_id="NSF"))  # nobody has enrolled it: it will be parked
    await eventually(lambda: len(waits) > 6)
    assert await service.admin.fetchval("select count(*) from usage_deferred") == 0

    body = {"ids": [item["id"] for item in (await parked())[:3]], "reason": "the producer has been corrected"}
    reply = await service.client.post("/v1/usage/parked/discard", json=body)
    assert reply.json() == {"discarded": 3}
    await eventually(partial(counts, entitlements, 2))
    await eventually(partial(holds, 2))
    assert await warned() == []


async def test_what_is_deferred_is_parked_in_its_order_even_with_headers_that_postgres_cannot_keep(
    front: Entitlements,
) -> None:
    await front.enroll(cap=5)
    front.service.clock.move(LATER)
    intake = UsageIntake(front.service.runtime)
    async with front.service.runtime.database.write("NASA", context=CONTEXT):
        for number in range(3):
            unknown = json.dumps(used(number, feature="telepathy")).encode()
            headers = [*STRUCTURED, ("trace\0", str(number).encode())]
            await front.service.producer.put_raw(FeatureUsed.topic, key=b"NASA", value=unknown, headers=headers)
        await count_all(intake)
    await intake.deferred.count()
    items = (await front.service.client.get("/v1/usage/parked")).json()["items"]
    assert [item["headers"]["trace\\0"] for item in items] == ["0", "1", "2"]
