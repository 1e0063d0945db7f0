"""Billing's audit trails, recorded and sealed as a test says, and tampered with."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from muster_contracts import Envelope, event_id, source_of
from muster_contracts.billing import BillingAuditSealed
from muster_operator.audit.finding import What
from muster_operator.audit.verify import Verified, verify
from muster_operator.target import Target
from muster_runtime.context import Context
from muster_runtime.observability import audit
from muster_runtime.scheduling.sealer import Sealer
from tests.support.eventually import eventually
from tests.support.services import RunningService

TOPIC = BillingAuditSealed.topic

# What, agency, seals and ids of a finding.
Found = tuple[What, str, tuple[int, int] | None, tuple[int, int] | None]


@dataclass
class Trails:
    """Billing without its scheduler: rows are recorded and sealed as the test says."""

    service: RunningService
    ids: dict[str, list[int]] = field(default_factory=dict)

    async def record(self, agency_id: str, *subjects: str) -> None:
        """Record a row for each subject, a second apart, and leave an id free before each."""
        for subject in subjects:
            self.service.clock.move(self.service.clock.now() + timedelta(seconds=1))
            await self.service.admin.fetchval("select nextval(pg_get_serial_sequence('audit', 'id'))")
            context = Context(actor="=cmd()", correlation_id="cor_1", request_id="")
            async with self.service.runtime.database.write(agency_id, context=context) as uow:
                audit.record(uow, command="Test", agency_id=agency_id, subject=subject, after={"ö": [1.50, None]})
            last = await self.service.admin.fetchval("select max(id) from audit")
            self.ids.setdefault(agency_id, []).append(last)

    async def seal(self) -> None:
        """Seal the rows that are there, and wait until the seals are on the topic."""
        runtime = self.service.runtime
        period = timedelta(minutes=1)
        sealer = Sealer(runtime.database, runtime.wakeup, runtime.clock, "billing", BillingAuditSealed, period)
        assert await sealer.seal_all() == []
        await eventually(self._published)

    async def _published(self) -> bool:
        return bool(await self.service.admin.fetchval("select count(*) = 0 from outbox"))

    @property
    def target(self) -> Target:
        settings = self.service.runtime.settings
        return Target(
            {}, "", self.service.access.admin_dsn, {"kafka_bootstrap": settings.kafka_bootstrap}, settings.topic_prefix
        )

    async def verify(self, **options: Any) -> Verified:
        return await verify(self.target, "billing", **options)

    async def found(self, **options: Any) -> list[Found]:
        findings = (await self.verify(**options)).findings
        return [(each.what, each.agency_id, each.seals, each.ids) for each in findings]

    @asynccontextmanager
    async def tampered(self, *statements: str) -> AsyncIterator[None]:
        """Tamper as a superuser can, and undo it afterwards."""
        admin = self.service.admin
        await admin.execute("create temp table a as table audit; create temp table s as table audit_seal")
        for statement in statements:
            assert await admin.execute(statement) not in {"UPDATE 0", "DELETE 0", "INSERT 0 0"}, statement
        yield
        await admin.execute(
            "truncate audit, audit_seal; insert into audit overriding system value table a; "
            "insert into audit_seal table s; drop table a, s; alter table audit alter column id set generated always"
        )

    async def put(self, sequence: int, epoch: int = 1, **facts: Any) -> None:
        """Put a seal on the topic as NASA's newest one, as anyone who may write there can."""
        stored = await self.service.admin.fetchrow(
            "select * from audit_seal where agency_id = 'NASA' order by number desc limit 1"
        )
        assert stored is not None
        event = BillingAuditSealed(**{**stored, **facts})
        envelope = Envelope(
            id=event_id(TOPIC, "NASA", epoch, sequence),
            source=source_of(TOPIC),
            type=event.event_type,
            time=event.sealed_at,
            agency_id="NASA",
            epoch=epoch,
            sequence=sequence,
            correlation_id="cor_1",
        )
        await self.service.producer.put(envelope, event)

    async def run(self, *words: str, under: Sequence[str] = ()) -> tuple[int | None, str]:
        """The exit status of `muster audit`, and what it prints; another program, `under`, may run it."""
        target = self.target
        return await output(
            *(*under, sys.executable, "-m", "muster_operator", "audit", *words),
            MUSTER_ADMIN_DSN=target.admin_dsn,
            MUSTER_KAFKA_BOOTSTRAP=target.kafka.bootstrap,
            MUSTER_TOPIC_PREFIX=target.topic_prefix,
        )


async def output(*words: str, **environment: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **environment, "COLUMNS": "400"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()
