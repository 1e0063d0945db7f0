"""What a restore loses is named by reconcile, and its remedies correct it."""

import json
from pathlib import Path
from typing import Any

import pytest

from muster_contracts import SERVICES
from muster_local.demo.program import ProgramClient
from muster_local.scopes import SCOPES
from muster_runtime.clock import SystemClock
from tests.e2e.troubles import PATIENCE
from tests.support.eventually import eventually
from tests.support.operator import Operator, assign_seats, enroll, register

pytestmark = pytest.mark.shares_stack


async def post(
    operator: Operator, service: str, path: str, body: dict[str, Any], *, agency_id: str = "NASA", expect: int = 200
) -> None:
    stack = operator.stack
    urls = {name: stack.service_url(name) for name in SERVICES}
    async with ProgramClient(urls, stack.token(*SCOPES)) as program_office:
        await program_office.post(service, f"agencies/{agency_id}/{path}", body, expect=expect)


async def published(operator: Operator, service: str) -> None:
    await eventually(lambda: operator.sql(service, "select not exists (select from outbox)"), timeout=PATIENCE)


def differences(operator: Operator) -> dict[str, list[dict[str, str]]]:
    """What reconcile finds, by kind."""
    found: dict[str, list[dict[str, str]]] = {}
    for each in json.loads(operator.run("muster reconcile --json --settle 2 || true"))["differences"]:
        found.setdefault(each["what"], []).append(each)
    return found


def erase(operator: Operator, lost: dict[str, str]) -> str:
    """Run the command that reconcile names."""
    _, _, command = lost["remedy"].partition("muster ")
    return operator.run(f"muster {command.partition(';')[0].replace('…', 'restored')}")


async def test_a_restore_of_entitlements_gives_nobody_their_seat_back_unnoticed(
    operator: Operator, tmp_path: Path
) -> None:
    await enroll(operator, "NASA")
    pool = "select count(*) from pool where agency_id = 'NASA'"
    await eventually(lambda: operator.sql("entitlements", pool), timeout=PATIENCE)
    await assign_seats(operator, "NASA", range(2))
    revoked, suspended = json.loads(
        await operator.sql("entitlements", "select json_agg(seat_id order by seat_id) from seat")
    )
    variables = {"SERVICE": "entitlements", "BACKUP": str(tmp_path / "entitlements.dump")}
    operator.follow("restore.md", part="Back up", **variables)
    await post(operator, "entitlements", f"seats/{revoked}/revocation", {})
    await post(operator, "entitlements", f"seats/{suspended}/suspension", {})
    await assign_seats(operator, "NASA", [2])
    await published(operator, "entitlements")
    operator.follow("restore.md", part="Restore", **variables)

    found = differences(operator)
    person = "a person who was erased and is still there"
    assert found.keys() == {"a seat whose revocation was lost", "a seat whose suspension was lost", person}
    await post(operator, "entitlements", f"seats/{revoked}/revocation", {})
    await post(operator, "entitlements", f"seats/{suspended}/suspension", {})
    (lost,) = found[person]
    assert "is published" in erase(operator, lost)
    holder = await operator.sql("entitlements", "select subject_ref from seat where state = 'suspended'")
    with pytest.raises(AssertionError, match="already holds seat"):
        operator.run(f"muster erase-lost NASA {holder} --reason restored")
    await published(operator, "entitlements")
    audited = await operator.sql("entitlements", "select subject from audit where command = 'EraseLostPerson'")
    assert audited == lost["subject"]
    assert "All services agree." in operator.follow("restore.md", part="Afterwards", **variables)


async def test_a_contact_that_a_restore_of_enrollment_lost_can_be_erased(operator: Operator, tmp_path: Path) -> None:
    await register(operator, "DOE")
    variables = {"SERVICE": "enrollment", "BACKUP": str(tmp_path / "enrollment.dump")}
    operator.follow("restore.md", part="Back up", **variables)
    contact = {"name": "Ada Administrator", "email": "ada@doe.gov"}
    request = {"seats": 5, "starts_at": SystemClock().now().isoformat(), "contact": contact}
    await post(operator, "enrollment", "enrollments", request, agency_id="DOE", expect=201)
    await published(operator, "enrollment")
    operator.follow("restore.md", part="Restore", **variables)
    await post(operator, "enrollment", "enrollments", request, agency_id="DOE", expect=201)
    await published(operator, "enrollment")
    known = "select count(*) from directory where agency_id = 'DOE'"
    await eventually(lambda: operator.sql("notify", f"{known} having count(*) = 2"), timeout=PATIENCE)

    found = differences(operator)
    assert found.keys() == {"a contact that enrollment does not know"}
    (lost,) = found["a contact that enrollment does not know"]
    assert "is published" in erase(operator, lost)
    own = await operator.sql("enrollment", "select contact_ref from contact where agency_id = 'DOE'")
    with pytest.raises(AssertionError, match="is not lost"):
        operator.run(f"muster erase-lost DOE {own} --reason restored")
    with pytest.raises(AssertionError, match="belongs to DOE, not to NASA"):
        operator.run(f"muster erase-lost NASA {own} --reason restored")
    audited = await operator.sql("enrollment", "select subject from audit where command = 'EraseLostContact'")
    assert audited == lost["subject"]
    await eventually(lambda: operator.sql("notify", f"{known} having count(*) = 1"), timeout=PATIENCE)
    assert "All services agree." in operator.follow("restore.md", part="Afterwards", **variables)
