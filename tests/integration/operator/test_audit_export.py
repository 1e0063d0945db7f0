"""`muster audit export` that fails halfway, which must not leave a part that looks like the whole."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from muster_billing.bootstrap import build
from muster_billing.settings import BillingSettings
from muster_operator.audit.export import export
from muster_operator.audit.trail import Row, Trail
from muster_operator.failures import BadInput, Unreachable
from muster_runtime.clock import SystemClock
from muster_runtime.process.roles import Role
from tests.integration.operator.trails import Trails
from tests.support.services import ServiceRunner

START = SystemClock().now() - timedelta(days=10)
DAY = timedelta(days=1)


@pytest.fixture
async def trail(run_service: ServiceRunner) -> Trails:
    """NASA has two seals."""
    trail = Trails(await run_service(build, BillingSettings, roles=frozenset({Role.RELAY})))
    trail.service.clock.move(START)
    await trail.record("NASA", "1", "2")
    await trail.seal()
    await trail.record("NASA", "3")
    await trail.seal()
    return trail


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_a_full_disk_is_named_and_leaves_no_file(trail: Trails, tmp_path: Path, form: str) -> None:
    out = tmp_path / "nasa"
    period = ["--from", START.isoformat(), "--to", (START + DAY).isoformat()]
    words = ["export", "--service", "billing", "--agency", "NASA", *period, "--format", form, "--out", str(out)]
    assert await trail.run(*words, under=["prlimit", "--fsize=300"]) == (2, f"muster: --out {out}: File too large\n")
    assert list(tmp_path.iterdir()) == []
    status, printed = await trail.run(*words)
    assert status == 0, printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["nasa", "nasa.seals.csv"][: 1 + (form == "csv")]


async def test_a_database_that_stops_answering_leaves_no_file(
    trail: Trails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, last = Trail.rows, trail.ids["NASA"][-1]

    async def first_seal_only(self: Trail, agency_id: str, after: int, until: int) -> AsyncIterator[Row]:
        if until == last:
            raise ConnectionResetError("gone")
        async for row in rows(self, agency_id, after, until):
            yield row

    monkeypatch.setattr(Trail, "rows", first_seal_only)
    with pytest.raises(Unreachable, match="Postgres cannot be queried: gone"):
        await export(trail.target.admin_dsn, "billing", "NASA", START, START + DAY, tmp_path / "nasa", "json")
    assert list(tmp_path.iterdir()) == []


async def test_an_existing_file_stays_and_the_other_is_not_made(trail: Trails, tmp_path: Path) -> None:
    (tmp_path / "nasa.seals.csv").write_text("mine", "utf-8")
    with pytest.raises(BadInput, match=r"--out .*/nasa\.seals\.csv: File exists"):
        await export(trail.target.admin_dsn, "billing", "NASA", START, START + DAY, tmp_path / "nasa", "csv")
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("nasa.seals.csv", "mine")]
