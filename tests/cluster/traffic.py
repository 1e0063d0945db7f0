"""Live traffic from inside the cluster's network, with every request counted, and the oracle's verdict on it."""

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import httpx

from muster_contracts import SERVICES
from muster_local.demo.cast import Agency, cast
from muster_local.demo.evidence import Evidence
from muster_local.demo.program import ProgramClient
from muster_local.demo.proof.deliveries import mail_rules
from muster_local.demo.proof.line import Line, conclude, differences, first_occurrences
from muster_local.scopes import SCOPES
from tests.cluster.servers import Installed, Servers
from tests.faults.live.life import Life, register_without_headcounts
from tests.faults.live.verdict import AT_REST, REST_SECONDS, at_rest, gather_one_state, untrue
from tests.support.eventually import eventually

# The agencies that live at the same time. With three, the traffic took more than half of the machine, and each
# disturbance lasted longer for lack of it.
LIVES = 2

# For the same reason: with 200, most of the machine's work was for the seats of files, an e-mail each.
FILE_ROWS = 20

# Between two health checks of each service, which run beside the commands.
LOOK_SECONDS = 0.4

# A pod on a dead node swallows connections until the cluster notices.
TIMEOUTS = {"connect": 3.0, "read": 30.0, "write": 10.0, "pool": 30.0}


@dataclass
class Counted(httpx.AsyncBaseTransport):
    """A transport that opens a connection for each request, like a new client, and notes failures with their time.

    It resolves each name once: the cluster's DNS is not what is tested.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.began = datetime.now(UTC)
        self._started = time.monotonic()
        limits = httpx.Limits(max_connections=50, max_keepalive_connections=0)
        self._addresses: dict[str, str] = {}
        self._inner = httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        request.extensions["timeout"] = TIMEOUTS
        address = await self._address(request.url.host)
        began = time.monotonic()
        try:
            response = await self._inner.handle_async_request(_sent_to(address, request))
        except httpx.TransportError as error:
            self._note(request, began, f"{type(error).__name__}: {error}")
            raise
        if response.status_code >= 500:
            self._note(request, began, str(response.status_code))
        self.slowest = max(self.slowest, time.monotonic() - began)
        return response

    async def _address(self, host: str) -> str:
        if host not in self._addresses:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
            self._addresses[host] = str(found[0][4][0])
        return self._addresses[host]

    def __str__(self) -> str:
        return f"{self.requests} requests, {len(self.failures)} failed, the slowest {self.slowest:.1f} s"

    def _note(self, request: httpx.Request, began: float, what: str) -> None:
        at = began - self._started
        self.failures.append(f"{at:.1f} s: {request.method} {request.url.host.split('.')[0]}: {what}")


def _sent_to(address: str, request: httpx.Request) -> httpx.Request:
    """The same request, to an address; its Host header stays."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions,
    )


class Traffic:
    """The traffic while the cluster is disturbed. Each block of traffic has its own agencies."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self.servers = servers
        self.seed = seed
        self.stack = Installed(servers)
        self.urls = {service: self.stack.service_url(service) for service in SERVICES}
        self._agencies = cast(1000)
        random.Random(f"{seed}/cast").shuffle(self._agencies)
        self._used = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Counted]:
        """Run traffic during the block, then wait for rest and ask the oracle. The caller judges failed requests."""
        before = await commands_done(self.stack)
        counted = Counted()
        over = asyncio.Event()
        async with ProgramClient(self.urls, self.stack.token(*SCOPES), counted) as program:
            async with asyncio.TaskGroup() as living:
                for agency in self.next_agencies(LIVES):
                    life = Life(program, agency, random.Random(f"{self.seed}/{agency.id}"), FILE_ROWS)
                    living.create_task(_live(life, over))
                living.create_task(_look(counted, self.urls, over))
                try:
                    await eventually(lambda: counted.requests > 20, timeout=60)
                    yield counted
                finally:
                    over.set()
            sent = Counter(before) + Counter(program.commands)
        print(f"traffic began at {counted.began:%T}", *counted.failures, sep="\n")
        differing = await verdict(self.stack, sent)
        assert not differing, differing

    def next_agencies(self, count: int) -> Sequence[Agency]:
        """Agencies that nobody has enrolled yet."""
        self._used += count
        return self._agencies[self._used - count : self._used]


async def import_register(servers: Servers) -> None:
    """Import the register of agencies."""
    stack = Installed(servers)
    async with ProgramClient({"enrollment": stack.service_url("enrollment")}, servers.token()) as program:
        await program.upload("enrollment", "register", register_without_headcounts(), "text/tab-separated-values")


async def _live(life: Life, over: asyncio.Event) -> None:
    await life.enroll()
    await life.go_on(over)


async def _look(counted: Counted, urls: Mapping[str, str], over: asyncio.Event) -> None:
    async with httpx.AsyncClient(transport=counted, trust_env=False) as http:
        while not over.is_set():
            for url in urls.values():
                with suppress(httpx.TransportError):  # Counted notes it
                    await http.get(f"{url}/health/live")
            await asyncio.sleep(LOOK_SECONDS)


async def commands_done(stack: Installed) -> Mapping[str, int]:
    """The number of commands that each service has executed."""
    admin = await asyncpg.connect(stack.admin_dsn)
    try:
        return {
            service: await admin.fetchval(
                f"select count(distinct request_id) from {service}.audit where request_id is not null"
            )
            for service in SERVICES
        }
    finally:
        await admin.close()


def one_mail_per_intent(evidence: Evidence) -> Line:
    """Exactly the e-mails that the rules call for exist, each once, all delivered; there are no webhooks here."""
    due = Counter(
        (fact.envelope.id, rule.name) for fact in first_occurrences(evidence.facts) for rule in mail_rules(fact)
    )
    made = Counter((d.event_id, d.rule) for d in evidence.deliveries)
    faults = differences("delivery of", due, made)
    faults += [f"{d.id} is {d.state}" for d in evidence.deliveries if d.state != "delivered"]
    return conclude("One e-mail per intent, all delivered", faults, f"{made.total()} e-mails", made)


async def verdict(stack: Installed, commands: Mapping[str, int]) -> list[str]:
    """Wait until everything is at rest; return what was lost, duplicated, out of order, or left behind."""
    await eventually(lambda: at_rest(stack), timeout=REST_SECONDS)
    evidence = await gather_one_state(stack, commands, [])
    return untrue([*AT_REST, one_mail_per_intent], evidence)
