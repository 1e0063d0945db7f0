"""A standby of Postgres takes over, is gone, or comes back."""

import asyncio

from tests.faults.field import Field
from tests.faults.findings import Findings
from tests.faults.replica import Replicas
from tests.support.eventually import eventually


async def test_36_a_synchronous_standby_that_is_promoted_lacks_nothing_and_the_services_follow(
    replicated_field: Field, replicas: Replicas, findings: Findings
) -> None:
    field = replicated_field
    await replicas.wait_for_standby()
    consumer = field.start("consumer")
    await field.serve("relay")
    await field.ready(consumer)
    async with field.live_traffic():
        await eventually(lambda: len(field.recorder.commands()) > 40, timeout=60)
        await asyncio.to_thread(replicas.primary.kill)
        answered = len(field.recorder.commands())
        await replicas.promote()
        findings.fault_is_over()
        await eventually(lambda: len(field.recorder.commands()) > answered + 40, timeout=60)
    await field.reconnect()
    await field.at_rest()
    findings.recovered("40 commands were answered before the primary was killed, and 40 once the standby led")
    assert field.api.runs
    assert consumer.runs
    await field.ready(field.api, consumer)
    assert await field.differences() == []
