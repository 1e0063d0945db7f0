"""A command's spans reach the trace collector from every role that takes part in it, through the policies."""

import random

import httpx

from muster_local.demo.program import ProgramClient
from muster_local.scopes import SCOPES
from tests.cluster.release import COLLECTOR_PORT, MACHINE
from tests.cluster.traffic import Traffic
from tests.faults.live.life import Life
from tests.support.collector import collecting
from tests.support.eventually import eventually

TRACE, CALLER = "ab" * 16, "cd" * 8

REPORTED_SECONDS = 60

# What takes part in an enrollment: the services that publish, and those that apply.
PARTS = {
    ("muster-enrollment", "SERVER"),
    ("muster-enrollment", "PRODUCER"),
    ("muster-billing", "CONSUMER"),
    ("muster-billing", "PRODUCER"),
    ("muster-entitlements", "CONSUMER"),
    ("muster-notify", "CONSUMER"),
}


class Traced(httpx.AsyncHTTPTransport):
    """Sends every request as a part of one trace, which the caller has sampled."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        return await super().handle_async_request(request)


async def test_a_command_is_one_trace_through_the_services(traffic: Traffic, seed: int) -> None:
    (agency,) = traffic.next_agencies(1)
    with collecting(MACHINE, COLLECTOR_PORT) as collector:
        async with ProgramClient(traffic.urls, traffic.stack.token(*SCOPES), Traced()) as program:
            await Life(program, agency, random.Random(f"{seed}/{agency.id}")).enroll()

        def all_have_reported() -> bool:
            found = {(span.resource["service.name"], span.kind) for span in collector.of_trace(TRACE)}
            assert found >= PARTS, PARTS - found
            return True

        await eventually(all_have_reported, timeout=REPORTED_SECONDS)
        assert {span.trace_id for span in collector.spans} == {TRACE}  # nothing else is sampled
