"""A real stack with agencies that have enrolled through its routes, for the duration of one benchmark."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import asyncpg
import psutil

from muster_contracts import SERVICES, topics
from muster_enrollment.domain.rules import ISSUER, PRODUCT
from muster_local.demo import cast
from muster_local.demo.cast import Agency
from muster_local.demo.program import ProgramClient
from muster_local.readiness import ask
from muster_local.scopes import SCOPES
from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, kafka_at
from muster_local.stack import Stack
from muster_operator.databases.provisioning import drop
from muster_operator.topics import delete_topics
from muster_runtime.clock import SystemClock
from tests.bench.processes import listener
from tests.support import servers

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Stage:
    """The stack, the agencies with their numbers of seats, and clients to talk to the stack."""

    stack: Stack
    agencies: Sequence[Agency]
    program: ProgramClient
    admin: "asyncpg.Pool[asyncpg.Record]"

    def processes(self) -> dict[str, psutil.Process]:
        """The services' processes and the servers', by name."""
        services = {service: psutil.Process(self.stack.pids()[service]) for service in SERVICES}
        return {**services, "Postgres": listener(self.stack.admin_dsn), "Kafka": listener(self.stack.bootstrap)}

    async def settle(self) -> None:
        """Wait until every outbox is empty and every event is applied, twice in a row.

        A service that applies an event may publish one to a service that was already checked.
        """
        quiet = 0
        while quiet < 2:
            answers = [await ask(service, self.stack.service_url(service)) for service in SERVICES]
            quiet = quiet + 1 if all((a.outbox_rows, a.lag) == (0, 0) for a in answers) else 0
            if not quiet:
                await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def stage(seats: int, more: Sequence[Agency] = (), *, secure: bool | None = None) -> AsyncIterator[Stage]:
    """Start the four services; enroll 44 agencies, with this many seats in proportion to headcount, and the named ones.

    The stack uses the servers that most benchmarks share, or new ones if `secure` is given.
    """
    addresses = servers.start(durable=True)
    home = Path(tempfile.mkdtemp(prefix="muster-bench-"))
    stack = await Stack.start(home) if secure is None else await start_alone(home, secure=secure)
    admin_dsn, prefix = stack.admin_dsn, stack.topic_prefix
    urls = {service: stack.service_url(service) for service in SERVICES}
    # The triggers on the tables that a benchmark fills name tables without a schema.
    admin = await asyncpg.create_pool(
        admin_dsn, min_size=1, max_size=3, server_settings={"search_path": "entitlements"}
    )
    try:
        async with ProgramClient(urls, stack.token(*SCOPES)) as program:
            agencies = [*cast.cast(seats), *more]
            await program.upload("enrollment", "register", cast.register(), "text/tab-separated-values")
            now = SystemClock().now()
            await asyncio.gather(*(_enroll(program, agency, now) for agency in agencies))
            own = Stage(stack, agencies, program, admin)
            while await admin.fetchval("select count(*) from entitlements.pool") < len(agencies):
                await asyncio.sleep(_LOOK_SECONDS)
            await own.settle()
            yield own
    finally:
        await admin.close()
        await stack.stop()
        if secure is None:
            await drop(addresses.postgres_dsn, urlsplit(admin_dsn).path.strip("/"))
            await delete_topics(kafka_at(addresses.kafka_bootstrap), [prefix + name for name in topics()])
        shutil.rmtree(home, ignore_errors=True)


async def start_alone(home: Path, *, secure: bool, services: Sequence[str] | None = None) -> Stack:
    """A stack that takes no servers from the environment."""
    with patch.dict(os.environ):
        for name in (POSTGRES_DSN, KAFKA_BOOTSTRAP):
            os.environ.pop(name, None)
        return await Stack.start(home, services=services, secure=secure)


async def _enroll(program: ProgramClient, agency: Agency, now: datetime) -> None:
    contact = {"name": agency.contact.name, "email": agency.contact.email}
    path = f"agencies/{agency.id}"
    enrollment = {"seats": agency.seats, "starts_at": now.isoformat(), "contact": contact}
    authorization = {
        "number": f"GSA-ATU-{agency.id}",
        "issuer": ISSUER,
        "product": PRODUCT,
        "valid_from": now.isoformat(),
        "valid_until": (now + timedelta(days=730)).isoformat(),
    }
    acceptance = {
        "terms_version": "2025-08",
        "signer": contact,
        "evidence_sha256": hashlib.sha256(agency.id.encode()).hexdigest(),
    }
    await program.post("enrollment", f"{path}/enrollments", enrollment)
    await program.post("enrollment", f"{path}/authorizations", authorization)
    await program.post("enrollment", f"{path}/data-use-acceptances", acceptance)
