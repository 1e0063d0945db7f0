"""A running entitlements service, and an agency that enrollment and billing publish events about."""

import asyncio
import csv
import io
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from muster_contracts import ClockMoved, Money
from muster_contracts.billing import RenewalDecided, TermEnded, TermStarted
from muster_contracts.enrollment import AgencyEnrolled, AgencyWithdrawn
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = datetime(2025, 8, 6, tzinfo=UTC)
END = datetime(2026, 8, 6, tzinfo=UTC)
NEXT_END = datetime(2027, 8, 6, tzinfo=UTC)

ProcessStarter = Callable[..., Awaitable[asyncio.subprocess.Process]]


@dataclass(frozen=True)
class Entitlements:
    """The running service, and one agency of it."""

    service: RunningService
    agency: str = "NASA"

    async def enroll(self, cap: int, enrollment_id: str = "enr_1") -> None:
        """Enroll the agency, and wait until its pool is there."""
        await self.service.publish(self.enrolled(cap, enrollment_id))

        async def opened() -> bool:
            return bool((await self.get("pool")).json().get("enrollment_id") == enrollment_id)

        await eventually(opened)

    def enrolled(self, cap: int, enrollment_id: str = "enr_1") -> AgencyEnrolled:
        return AgencyEnrolled(
            agency_id=self.agency,
            enrollment_id=enrollment_id,
            agency_name="An agency",
            seats=cap,
            starts_at=START,
            ends_at=END,
        )

    def withdrawn(self, enrollment_id: str = "enr_1", at: datetime = START) -> AgencyWithdrawn:
        return AgencyWithdrawn(
            agency_id=self.agency, enrollment_id=enrollment_id, reason="reorganized", withdrawn_at=at
        )

    def term(self, enrollment_id: str = "enr_1") -> TermStarted:
        return TermStarted(
            agency_id=self.agency,
            term_id=f"term_of_{enrollment_id}",
            enrollment_id=enrollment_id,
            number=1,
            starts_at=START,
            ends_at=END,
            price=Money(amount_minor=100, currency="USD"),
        )

    def renewal(self, decision: str, enrollment_id: str = "enr_1") -> RenewalDecided:
        return RenewalDecided(
            agency_id=self.agency,
            term_id=f"term_of_{enrollment_id}",
            renewal_id="ren_1",
            decision=decision,
            price=Money(amount_minor=100, currency="USD"),
            next_starts_at=END,
            next_ends_at=NEXT_END,
            decided_at=START,
        )

    def term_ended(
        self, *, renewed: bool = False, reason: str = "completed", enrollment_id: str = "enr_1"
    ) -> TermEnded:
        return TermEnded(
            agency_id=self.agency,
            term_id=f"term_of_{enrollment_id}",
            reason=reason,
            renewed=renewed,
            ended_at=END,
        )

    async def get(self, path: str, **params: str) -> httpx.Response:
        return await self.service.client.get(f"/v1/agencies/{self.agency}/{path}", params=params)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return await self.service.client.post(f"/v1/agencies/{self.agency}/{path}", json=body, headers=headers)

    async def assign(self, person: object, *, key: str | None = None) -> httpx.Response:
        return await self.post("seats", {"email": f"person.{person}@nasa.gov", "name": f"Person {person}"}, key=key)

    async def assign_seats(self, seats: int) -> None:
        """Give this many people a seat, without a worker and without events."""
        assert (await self.assign(0)).status_code == 201
        await self.service.admin.execute(
            """
            insert into seat (agency_id, seat_id, subject_ref, state, assigned_at, idle_since, email)
            select
                agency_id, 'seat_' || md5(n::text), 'sub_' || md5(n::text), 'assigned', assigned_at, idle_since,
                'person.' || n || '@nasa.gov'
            from seat
            cross join generate_series(1, $2 - 1) as s (n)
            where agency_id = $1
            """,
            self.agency,
            seats,
        )
        await self.service.admin.execute("update pool set in_use = $2 where agency_id = $1", self.agency, seats)

    async def send_file(
        self, body: Any, route: str = "seat-imports", *, key: str | None = None, **params: Any
    ) -> httpx.Response:
        headers = {"Content-Type": "text/csv"} | ({"Idempotency-Key": key} if key else {})
        path = f"/v1/agencies/{self.agency}/{route}"
        return await self.service.client.post(path, content=body, headers=headers, params=params)

    async def finished(self, accepted: httpx.Response, timeout: float = 60) -> dict[str, Any]:
        """The operation of an accepted file, once it is finished."""
        assert accepted.status_code == 202, accepted.text

        async def over() -> dict[str, Any] | None:
            reply = await self.service.client.get(accepted.headers["location"])
            operation: dict[str, Any] = reply.json()
            return operation if operation["state"] in {"completed", "stopped"} else None

        operation: dict[str, Any] = await eventually(over, timeout=timeout)
        return operation

    async def import_file(self, body: Any, route: str = "seat-imports", **params: Any) -> dict[str, Any]:
        """Send a file, and wait until it is processed."""
        return await self.finished(await self.send_file(body, route, **params))

    async def results(self, operation: dict[str, Any]) -> list[dict[str, str]]:
        reply = await self.service.client.get(operation["results"])
        assert reply.status_code == 200, reply.text
        return list(csv.DictReader(io.StringIO(reply.text)))

    async def check(self, person: object, feature: str = "deep-research") -> dict[str, Any]:
        reply = await self.get("checks", subject=f"person.{person}@nasa.gov", feature=feature)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    async def pool(self) -> dict[str, Any]:
        reply = await self.get("pool")
        assert reply.status_code == 200, reply.text
        pool: dict[str, Any] = reply.json()
        return pool


@pytest.fixture
async def entitlements(run_service: ServiceRunner) -> Entitlements:
    """Entitlements, at the start of the program."""
    service = await run_service(build, EntitlementsSettings)
    service.clock.move(START)
    return Entitlements(service)


@pytest.fixture
async def front(run_service: ServiceRunner) -> Entitlements:
    """The service without scheduler and relay, at the start of the program: their work waits.

    Processes beside it read the time from the topic of the sandbox's clock.
    """
    service = await run_service(build, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER}))
    await service.producer.put_raw(
        ClockMoved.topic, key=None, value=ClockMoved(now=START).model_dump_json().encode(), headers=[]
    )
    # The service follows the topic, too: a move by a test before it has read this would be undone.
    await eventually(lambda: service.clock.now() == START)
    return Entitlements(service)


@pytest.fixture
def chance() -> random.Random:
    """Randomness that makes kills repeatable: its seed is FAULT_SEED or a new one, and is printed."""
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
async def start_process(front: Entitlements) -> AsyncIterator[ProcessStarter]:
    """`await start_process("relay", port=0)`: a process beside `front`, on its database.

    `breaking` are options of tests.faults.launcher that make the process end itself.
    """
    started: list[asyncio.subprocess.Process] = []

    async def start(*roles: str, port: int = 0, breaking: Sequence[str] = ()) -> asyncio.subprocess.Process:
        settings = front.service.runtime.settings
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(["-m", "tests.faults.launcher", *breaking] if breaking else []),
            *("-m", "muster_entitlements", "serve"),
            *(option for role in roles for option in ("--role", role)),
            env=os.environ
            | {
                "MUSTER_ENVIRONMENT": "sandbox",
                "MUSTER_INSTANCE": f"entitlements-{len(started)}",
                "MUSTER_HTTP_PORT": str(port),
                "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
                "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
                "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
                "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
                "MUSTER_TOPIC_PARTITIONS": str(settings.topic_partitions),
                "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
                "MUSTER_OIDC_JWKS": settings.oidc_jwks,
            },
            stdout=asyncio.subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
