"""`muster audit` on real servers: what was tampered with is named, and an export can be verified by an outsider."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from muster_billing.bootstrap import build
from muster_billing.publishing import audit_sealed
from muster_billing.settings import BillingSettings
from muster_contracts import Envelope, event_id, source_of
from muster_contracts.billing import BillingAuditSealed
from muster_operator.audit.export import cell
from muster_operator.audit.finding import What
from muster_operator.audit.verify import Verified, verify
from muster_operator.target import Target
from muster_runtime.clock import SystemClock
from muster_runtime.context import Context
from muster_runtime.database.transactions import EVERY_AGENCY
from muster_runtime.messaging.epochs import raise_epoch
from muster_runtime.observability import audit
from muster_runtime.observability.seals import make_seal
from muster_runtime.process import Role
from muster_runtime.scheduling import trails
from muster_runtime.scheduling.sealer import Sealer
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

START = SystemClock().now() - timedelta(days=10)
TOPIC = BillingAuditSealed.topic
PAGE = Path(__file__).parents[3] / "docs" / "audit.md"

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
        """Seal what is there, and wait until that is on the topic."""
        runtime = self.service.runtime
        sealer = Sealer(runtime.database, runtime.wakeup, runtime.clock, "billing", audit_sealed, timedelta(minutes=1))
        assert await sealer.seal_all() == []
        await eventually(self._published)

    async def _published(self) -> bool:
        return bool(await self.service.admin.fetchval("select count(*) = 0 from outbox"))

    @property
    def target(self) -> Target:
        settings = self.service.runtime.settings
        return Target({}, "", self.service.access.admin_dsn, settings.kafka_bootstrap, settings.topic_prefix)

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

    async def put(self, sequence: int, **facts: Any) -> None:
        """Put a seal of NASA on the topic, as whoever may write there can."""
        stored = await self.service.admin.fetchrow("select * from audit_seal where agency_id = 'NASA' and number = 3")
        assert stored is not None
        event = BillingAuditSealed(**{**stored, **facts})
        envelope = Envelope(
            id=event_id(TOPIC, "NASA", 1, sequence),
            source=source_of(TOPIC),
            type=event.event_type,
            time=event.sealed_at,
            agency_id="NASA",
            epoch=1,
            sequence=sequence,
            correlation_id="cor_1",
        )
        await self.service.producer.put(envelope, event)

    async def run(self, *words: str) -> tuple[int | None, str]:
        """The exit status of `muster audit`, and what it prints."""
        target = self.target
        return await output(
            *(sys.executable, "-m", "muster_operator", "audit", *words),
            MUSTER_ADMIN_DSN=target.admin_dsn,
            MUSTER_KAFKA_BOOTSTRAP=target.bootstrap,
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


@pytest.fixture
async def trail(run_service: ServiceRunner) -> Trails:
    """NASA has three seals of three, three and two rows; DOE, and the program, one each."""
    trail = Trails(await run_service(build, BillingSettings, roles=frozenset({Role.RELAY})))
    trail.service.clock.move(START)
    await trail.record("NASA", "1", "2", "3")
    await trail.seal()
    await trail.record("DOE", "1")
    await trail.record("NASA", "4")
    await trail.record(EVERY_AGENCY, "1")
    await trail.record("NASA", "5", "6")
    await trail.seal()
    await trail.record("NASA", "7", "8")
    await trail.seal()
    return trail


async def test_each_way_of_tampering_is_named_with_its_range(trail: Trails) -> None:
    verified = await trail.verify()
    assert (verified.findings, verified.seals, verified.rows, verified.unsealed) == ([], 5, 10, 0)
    ids = trail.ids["NASA"]
    second, third = (ids[3], ids[5]), (ids[6], ids[7])

    def of(what: What, seals: tuple[int, int] | None, rows: tuple[int, int] | None) -> Found:
        return what, "NASA", seals, rows

    of_second = (2, 2), second
    copied = "actor, command, subject, reason, before, after, request_id, correlation_id"
    columns = f"id, recorded_at, agency_id, {copied}"
    values = f"recorded_at, agency_id, {copied} from audit where id = {ids[4]}"
    insert = f"insert into audit ({columns}) overriding system value select {{}}, {values}"
    cases: list[tuple[Sequence[str], list[Found]]] = [
        *(
            ([f"update audit set {change} where id = {ids[4]}"], [of(What.EDITED, *of_second)])
            for change in (
                "actor = 'somebody else'",
                "reason = 'better'",
                "subject = null",
                """after = '{"ö": [1.50, null]}'""",
                "request_id = null",
            )
        ),
        ([f"delete from audit where id = {ids[4]}"], [of(What.REMOVED, *of_second)]),
        ([f"delete from audit where id = {ids[5]}"], [of(What.REMOVED, *of_second)]),
        ([insert.format(ids[4] - 1)], [of(What.INSERTED, *of_second)]),
        ([insert.format(ids[6] - 1)], [of(What.INSERTED, None, (ids[6] - 1, ids[6] - 1))]),
        (
            [
                "alter table audit alter column id set generated by default",
                f"update audit set id = -1 where id = {ids[4]}",
                f"update audit set id = {ids[4]} where id = {ids[5]}",
                f"update audit set id = {ids[5]} where id = -1",
            ],
            [of(What.REORDERED, *of_second)],
        ),
        # A row of another agency.
        (
            [f"update audit set agency_id = 'DOE' where id = {ids[4]}"],
            [(What.UNSEALED, "DOE", None, (ids[4], ids[4])), of(What.REMOVED, *of_second)],
        ),
        (["update audit_seal set count = 4 where number = 2"], [of(What.SEAL_ALTERED, *of_second)]),
        (
            [f"delete from audit where id = {ids[4]}", "update audit_seal set count = 2 where number = 2"],
            [of(What.REMOVED, *of_second), of(What.SEAL_ALTERED, *of_second)],
        ),
        (["delete from audit_seal where number = 2"], [of(What.SEALS_MISSING, *of_second)]),
        (["delete from audit_seal where number = 3"], [of(What.SEALS_MISSING, (3, 3), third)]),
        (
            [
                f"delete from audit where id >= {ids[3]} and agency_id = 'NASA'",
                "delete from audit_seal where number > 1",
            ],
            [
                of(What.REMOVED, *of_second),
                of(What.SEALS_MISSING, (2, 3), (ids[3], ids[7])),
                of(What.REMOVED, (3, 3), third),
            ],
        ),
        # As if its retention were over.
        (
            [
                f"delete from audit where id < {ids[3]}",
                "delete from audit_seal where agency_id = 'NASA' and number = 1",
            ],
            [of(What.REMOVED, (1, 1), (ids[0], ids[2])), of(What.SEALS_MISSING, (1, 1), (ids[0], ids[2]))],
        ),
        (
            ["delete from audit where agency_id = 'NASA'", "delete from audit_seal where agency_id = 'NASA'"],
            [of(What.SEALS_MISSING, (1, 3), (ids[0], ids[7]))],
        ),
        (["delete from audit where agency_id = '*'"], [(What.REMOVED, "*", (1, 1), tuple(trail.ids["*"] * 2))]),  # type: ignore[list-item]
    ]
    for statements, expected in cases:
        async with trail.tampered(*statements):
            assert sorted(await trail.found()) == sorted(expected), statements
        assert await trail.found() == []
    async with trail.tampered(f"update audit set reason = 'x' where id = {ids[4]}"):
        since = await trail.service.admin.fetchval("select sealed_at from audit_seal where number = 3")
        assert await trail.found(since=since) == []
        assert await trail.found(agency_id="DOE") == []


async def test_seals_are_compared_with_the_topic_both_ways(trail: Trails) -> None:
    admin = trail.service.admin
    # A seal that was never published, of a row that was: an insider sealed it.
    await trail.record("NASA", "9")
    new = trail.ids["NASA"][-1]
    rows = await admin.fetch("select * from audit where id = $1", new)
    before = await admin.fetchval("select sha256 from audit_seal where agency_id = 'NASA' and number = 3")
    made = make_seal(rows, "billing", "NASA", 4, before, START)
    columns = ", ".join(made.facts)
    sql = f"insert into audit_seal ({columns}) values ($1, $2, $3, $4, $5, $6, $7, $8)"
    await admin.execute(sql, *made.facts.values())
    assert await trail.found() == [(What.NOT_ON_TOPIC, "NASA", (4, 4), None)]
    await admin.execute("delete from audit_seal where number = 4")

    # It is recorded by the sandbox's clock, and so long ago for the server.
    assert await trail.found() == [(What.UNSEALED, "NASA", None, (new, new))]
    await admin.execute("update audit set recorded_at = now() where id = $1", new)
    verified = await trail.verify()
    assert (verified.findings, verified.unsealed) == ([], 1)

    # A repeated record is none; another at its place is, and so is one that the database lacks.
    await trail.put(3)
    assert await trail.found() == []
    await trail.put(3, sha256="1" * 64)
    await trail.put(4, number=4, sha256="2" * 64, previous_sha256="3" * 64)
    await trail.service.producer.put_raw(TOPIC, key=b"NASA", value=b"{}", headers=[])
    ends = trail.ids["NASA"][6], trail.ids["NASA"][7]
    assert sorted(await trail.found()) == sorted(
        [
            (What.FORGED, "NASA", (3, 3), ends),
            (What.CHAIN_BROKEN, "NASA", (4, 4), ends),
            (What.SEALS_MISSING, "NASA", (4, 4), ends),
            (What.REMOVED, "NASA", (4, 4), ends),
            (What.UNREADABLE, "?", None, None),
        ]
    )


async def test_a_restore_is_a_finding_until_its_epoch_is_accepted(trail: Trails) -> None:
    admin, ids = trail.service.admin, trail.ids["NASA"]
    # As it was before the last seal.
    await admin.execute(f"delete from audit where id >= {ids[6]}; delete from audit_seal where number = 3")
    await admin.execute("update stream set last_sequence = 2 where agency_id = 'NASA'")
    lost = [(What.SEALS_LOST, "NASA", (3, 3), (ids[6], ids[7]))]
    agencies = [EVERY_AGENCY, "DOE", "NASA"]
    async with trail.service.runtime.database.write(
        *agencies, context=Context(actor="operator", correlation_id="cor_1")
    ) as uow:
        await raise_epoch(uow, [], "restored")
    await trail.seal()
    assert await trail.found() == lost
    assert await trail.found(accepted_epochs=[2]) == []
    # The next seal has the number of the lost one.
    await trail.record("NASA", "9")
    await trail.seal()
    assert await trail.found() == [(What.SEALS_LOST, "NASA", (3, 3), None)]
    assert await trail.found(accepted_epochs=[2]) == []
    await admin.execute(f"update audit set reason = 'x' where id = {trail.ids['NASA'][-1]}")
    assert [what for what, *_ in await trail.found(accepted_epochs=[2])] == [What.EDITED]


async def test_whole_seals_are_dropped_in_time_and_the_rest_still_verifies(run_service: ServiceRunner) -> None:
    trail = Trails(await run_service(build, BillingSettings, roles=frozenset({Role.RELAY})))
    admin, database = trail.service.admin, trail.service.runtime.database
    now = SystemClock().now()
    for days in (800, 700, 300, 200):
        trail.service.clock.move(now - timedelta(days=days))
        await trail.record("NASA", "1", "2")
        if days == 800:
            await trail.record("DOE", "1")
        await trail.seal()
    retention = trails.of_audit(400)
    async with database.connection() as connection:
        assert await retention.oldest(connection) == await admin.fetchval("select min(sealed_at) from audit_seal")
        assert [await retention.purge(connection, now, 1) for _ in range(3)] == [2, 2, 0]
    kept = await admin.fetch("select agency_id, number from audit_seal order by agency_id, number")
    assert [tuple(row) for row in kept] == [("DOE", 1), ("NASA", 3), ("NASA", 4)]
    assert await trail.found() == []
    # What is younger than a year was not dropped by the service.
    await admin.execute(f"delete from audit where id <= {trail.ids['NASA'][5]} and agency_id = 'NASA'")
    await admin.execute("delete from audit_seal where agency_id = 'NASA' and number = 3")
    missing = await trail.found()
    assert (What.SEALS_MISSING, "NASA", (3, 3)) in [found[:3] for found in missing]


async def test_an_outsider_verifies_an_export_with_the_documented_script(trail: Trails, tmp_path: Path) -> None:
    status, printed = await trail.run("verify", "--service", "billing", "--json", "--settle", "0")
    assert (status, json.loads(printed)["clean"]) == (0, True)
    script = tmp_path / "verify.py"
    script.write_text(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[0], "utf-8")
    recorded = await trail.service.admin.fetch("select recorded_at from audit where agency_id = 'NASA' order by id")
    # From the second row to before the fifth: the first two seals.
    period = ["--from", recorded[1][0].isoformat(), "--to", recorded[4][0].isoformat()]
    last = await trail.service.admin.fetchval("select sha256 from audit_seal where agency_id = 'NASA' and number = 2")
    for form in ("json", "csv"):
        out = tmp_path / f"nasa.{form}"
        words = ["export", "--service", "billing", "--agency", "NASA", *period, "--format", form, "--out", str(out)]
        status, printed = await trail.run(*words)
        assert (status, "6 rows with 2 seals" in printed) == (0, True), printed
        assert out.stat().st_mode & 0o77 == 0
        assert (await trail.run(*words))[0] == 2, "an existing file is not overwritten"
        status, printed = await output(sys.executable, str(script), str(out))
        assert (status, printed.splitlines()[-1]) == (0, f"seal 2: 3 rows, {last}")
        text = out.read_text("utf-8")
        assert text.count("=cmd()") == 6
        assert text.count("'=cmd()") == (6 if form == "csv" else 0)
        out.write_text(text.replace("Test", "Best", 1), "utf-8")
        status, printed = await output(sys.executable, str(script), str(out))
        assert (status, printed) == (1, "seal 1: the rows are not as they were sealed\n")
    async with trail.tampered("update audit set reason = 'x' where agency_id = 'DOE'"):
        status, printed = await trail.run("verify", "--service", "billing", "--settle", "0")
        assert (status, "rows were edited" in printed) == (1, True)
    assert (await trail.run("verify", "--service", "payroll"))[0] == 2
    nothing = ["--from", "2020-01-01", "--to", "2020-01-02", "--out", str(tmp_path / "none")]
    assert (await trail.run("export", "--service", "billing", "--agency", "NASA", *nothing))[0] == 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\tx", "\rx", "'x", ""])
def test_no_cell_is_read_as_a_formula_or_as_null(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["x=1", None, 7])
def test_other_cells_are_as_they_are(value: object) -> None:
    assert cell(value) == value
