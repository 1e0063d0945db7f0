"""A replica takes over from the services' Postgres, and an operator follows the runbook, infra/runbooks/failover.md."""

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from muster_contracts import SERVICES, topics
from muster_local.demo.program import ProgramClient
from muster_local.readiness import ask
from muster_local.scopes import SCOPES
from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, kafka_at
from muster_operator.reconcile.streams import LOST_COMMITS, NOT_PUBLISHED
from muster_operator.topics import delete_topics
from tests.faults.findings import Findings
from tests.faults.proxy import PostgresProxy
from tests.faults.replica import Replicas
from tests.faults.servers import Server
from tests.support.eventually import eventually
from tests.support.operator import Operator, assign_seats, authorization, enroll

RUNBOOK = "failover.md"


@dataclass
class Stack:
    """The services on a primary and its standby, behind one address that follows whoever leads."""

    operator: Operator
    replicas: Replicas
    address: PostgresProxy

    async def follow(self, part: str, **variables: str) -> str:
        """Run the commands of a part of the runbook, and return what they printed."""
        return await asyncio.to_thread(self.operator.follow, RUNBOOK, part, **variables)

    async def run(self, command: str, **variables: str) -> str:
        """Run a command, and return what it printed."""
        return await asyncio.to_thread(self.operator.run, command, **variables)

    async def fail_over(self) -> None:
        """Kill the primary, promote the standby, and point the address to it."""
        await asyncio.to_thread(self.replicas.primary.kill)
        await self.replicas.promote()
        self.address.forward_to(self.replicas.standby.address)

    async def change(self, seats: range) -> None:
        """Record an authorization of NASA's at enrollment, and assign seats at entitlements: facts on four topics."""
        stack = self.operator.stack
        urls = {service: stack.service_url(service) for service in SERVICES}
        async with ProgramClient(urls, stack.token(*SCOPES)) as program_office:
            await program_office.post("enrollment", "agencies/NASA/authorizations", authorization(f"ATU-{seats}"))
        await assign_seats(self.operator, "NASA", seats)

    async def reasons(self, service: str) -> str:
        """Why a service is not ready; empty if it is."""
        return "; ".join((await ask(service, self.operator.stack.service_url(service))).reasons)


@pytest.fixture
async def stack(replicas: Replicas, kafka_server: Server) -> AsyncIterator[Stack]:
    """NASA is enrolled and has two seats, and everybody knows."""
    primary, bootstrap = replicas.primary.address, kafka_server.address
    folder = Path(tempfile.mkdtemp(prefix="muster-failover-"))
    async with PostgresProxy(primary) as address:
        environment = {POSTGRES_DSN: address.address_of(primary), KAFKA_BOOTSTRAP: bootstrap}
        stack = Stack(Operator(folder, environment), replicas, address)
        await stack.run("muster up")
        prefix = stack.operator.stack.topic_prefix
        try:
            await enroll(stack.operator, "NASA")
            await eventually(lambda: stack.operator.sql("entitlements", "select count(*) from pool"), timeout=30)
            await assign_seats(stack.operator, "NASA", range(2))
            yield stack
        finally:
            await stack.run("muster down")
            await delete_topics(kafka_at(bootstrap), [prefix + name for name in topics()])
            shutil.rmtree(folder)


async def test_39_after_an_asynchronous_failover_the_runbook_names_what_is_lost_and_ends_complete(
    stack: Stack, replicas: Replicas, findings: Findings
) -> None:
    await replicas.cut_off()
    await stack.change(range(2, 4))
    assert is_complete(await stack.run("muster streams check"))

    await stack.fail_over()
    findings.fault_is_over()
    for service in ("enrollment", "entitlements"):
        await eventually(lambda: refuses_to_publish(stack, service), timeout=60)  # noqa: B023 - awaited in turn
    # Commands continue, and take the positions of what was lost.
    await stack.change(range(4, 5))
    with pytest.raises(AssertionError, match="a producer that lost commits"):
        await stack.follow("Check")
    missing = json.loads(await stack.run("muster streams check --json --wait 2 || true"))["missing"]
    assert {each["agency_id"] for each in missing} == {"NASA"}
    assert {each["what"] for each in missing} == {LOST_COMMITS, NOT_PUBLISHED}
    services = sorted({each["service"] for each in missing if each["what"] == LOST_COMMITS})
    assert services == ["enrollment", "entitlements"]

    said = await stack.follow("Repair", SERVICES=" ".join(services))
    assert len(re.findall(r"\b(?:1 stream continues|(?!1 )\d+ streams continue) in epoch 2", said)) == 2
    assert is_complete(said)
    assert "NASA" in await stack.follow("Lost commands")
    await stack.change(range(2, 4))
    said = await stack.follow("Release the deadlines", SERVICES=" ".join(services))
    assert said.count("its deadlines are released") == 2, said
    assert "All services agree." in await stack.follow("Afterwards")
    findings.recovered(f"the check named {', '.join(each['topic'] for each in missing)}")


async def test_39_after_a_synchronous_failover_the_runbook_finds_everything_complete(
    stack: Stack, replicas: Replicas, findings: Findings
) -> None:
    await replicas.wait_for_standby()
    await stack.change(range(2, 4))
    standby = elsewhere(stack.operator.stack.admin_dsn, replicas.standby)
    with pytest.raises(AssertionError, match="Postgres is a standby"):
        await stack.run("muster streams check", MUSTER_ADMIN_DSN=standby)
    await stack.fail_over()
    findings.fault_is_over()
    for service in SERVICES:
        await eventually(lambda: is_ready(stack, service), timeout=60)  # noqa: B023 - awaited in turn
        await eventually(lambda: handles_deadlines(stack, service), timeout=30)  # noqa: B023 - awaited in turn
    said = await stack.follow("Check")
    findings.recovered("the services had followed without a restart; nothing was missing")
    assert is_complete(said)
    assert "All services agree." in await stack.follow("Afterwards")


def is_complete(said: str) -> bool:
    return bool(re.search(r"^complete: \d+ streams of \d+ topics, every consumer is at the end$", said, re.MULTILINE))


async def refuses_to_publish(stack: Stack, service: str) -> bool:
    assert "it was restored; raise its epoch" in (reasons := await stack.reasons(service)), reasons
    return True


async def is_ready(stack: Stack, service: str) -> bool:
    assert await stack.reasons(service) == ""
    return True


async def handles_deadlines(stack: Stack, service: str) -> bool:
    """Whether the relay has compared the topics with the new server's database."""
    compared = "select count(*) > 0 and not facts_in_doubt() from topic_comparison"
    return bool(await stack.operator.sql(service, compared))


def elsewhere(dsn: str, server: Server) -> str:
    """The same database on another server."""
    parts = urlsplit(dsn)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@{urlsplit(server.address).netloc.rpartition('@')[2]}"))
