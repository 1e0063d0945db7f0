"""Seat files over HTTP: what is refused or abandoned leaves nothing behind, and results are kept for a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from muster_entitlements.api import uploads as api_uploads
from muster_entitlements.api.uploads import Upload
from muster_entitlements.bootstrap import build
from muster_entitlements.domain import seat_file
from muster_entitlements.domain.operations import MOST_UNFINISHED
from muster_entitlements.handlers import uploads
from muster_entitlements.handlers.uploads import UPLOAD_LIMIT
from muster_entitlements.repository import operations
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.roles import Role
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of
from tests.support.eventually import eventually
from tests.support.services import ServiceRunner


async def test_the_key_of_an_import_is_bound_to_its_file(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=10)
    first = await entitlements.send_file(file_of(2), key="the import")
    again = await entitlements.send_file(file_of(2), key="the import")
    assert again.headers["location"] == first.headers["location"]
    assert (await entitlements.send_file(file_of(3), key="the import")).status_code == 422
    assert (await entitlements.finished(first))["assigned"] == 2
    assert await entitlements.service.admin.fetchval("select count(*) from operation") == 1
    assert await entitlements.service.admin.fetchval("select count(*) from operation_chunk") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf",
        b"name\nAda\n",
        b"email\n\xff@nasa.gov\n",
        b'email\nada@nasa.gov\n"bob',
        b"email\n" + b"a\n" * 150_000,
        b"email\n" + b"a@nasa.gov\n" * 50_000 + b'"' + b"a@nasa.gov\n" * 50_000,
    ],
)
async def test_a_file_that_cannot_be_read_changes_nothing(
    entitlements: Entitlements, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seat_file, "MOST_LINES", 150_000)
    await entitlements.enroll(cap=20_000)
    reply = await entitlements.send_file(body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["rule"]
    assert (await entitlements.pool())["in_use"] == 0
    for table in ("operation", "operation_chunk", "deadline where kind = 'upload-abandoned'"):
        assert await entitlements.service.admin.fetchval(f"select count(*) from {table}") == 0


async def test_one_endless_line_is_refused_at_once(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=1)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 65_536
            yield b"a" * 65_536

    assert (await entitlements.send_file(endless())).status_code == 422
    assert sent < 1 << 20


async def test_each_agency_has_its_own_limit_of_unfinished_files(run_service: ServiceRunner) -> None:
    service = await run_service(build, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER}))
    service.clock.move(START)
    entitlements, other = Entitlements(service), Entitlements(service, "DOE")
    await entitlements.enroll(cap=5)
    await other.enroll(cap=5)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"email\n"
        await go_on.wait()

    receiving = asyncio.create_task(entitlements.send_file(slow()))
    await eventually(lambda: service.admin.fetchval("select count(*) from operation"))
    for _ in range(MOST_UNFINISHED - 1):
        assert (await entitlements.send_file(file_of(1))).status_code == 202
    refused = await entitlements.send_file(file_of(1))
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:too-many-files")
    assert (refused.json()["limit"], str(MOST_UNFINISHED) in refused.json()["detail"]) == (MOST_UNFINISHED, True)
    assert (await other.send_file(file_of(1))).status_code == 202
    go_on.set()
    assert (await receiving).status_code == 202
    await service.admin.execute("update operation set state = 'completed' where agency_id = 'NASA'")
    assert (await entitlements.send_file(file_of(1))).status_code == 202


async def test_a_repeated_upload_gets_its_reply_whatever_limit_is_reached(
    run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await run_service(build, EntitlementsSettings, roles=frozenset({Role.API, Role.CONSUMER}))
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=5)
    for _ in range(MOST_UNFINISHED - 1):
        assert (await entitlements.send_file(file_of(1))).status_code == 202
    last = await entitlements.send_file(file_of(1), key="the last")
    assert last.status_code == 202
    monkeypatch.setattr(uploads, "MOST_KEPT_ROWS", 1)
    again = await entitlements.send_file(file_of(1), key="the last")
    assert (again.status_code, again.headers["location"]) == (202, last.headers["location"])
    assert (again.headers["idempotency-replayed"], again.json()) == ("true", last.json())
    assert (await entitlements.send_file(file_of(2), key="the last")).status_code == 422
    assert (await entitlements.send_file(file_of(1), key="another")).status_code == 409
    for table in ("operation", "operation_chunk"):
        assert await service.admin.fetchval(f"select count(*) from {table}") == MOST_UNFINISHED


async def test_a_repeated_upload_whose_reply_is_deleted_meanwhile_can_be_sent_again(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    class Begun(Upload):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            begun.set()

    await entitlements.enroll(cap=5)
    first = await entitlements.send_file(file_of(1), key="the import")
    assert (await entitlements.finished(first))["assigned"] == 1
    admin = entitlements.service.admin
    monkeypatch.setattr(api_uploads, "Upload", Begun)

    async def slow() -> AsyncIterator[bytes]:
        yield b"email,"
        await begun.wait()
        await admin.execute("delete from idempotency")
        yield file_of(1).encode().removeprefix(b"email,")

    refused = await entitlements.send_file(slow(), key="the import")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert await admin.fetchval("select count(*) from operation") == 1
    again = await entitlements.send_file(file_of(1), key="the import")
    assert (await entitlements.finished(again))["already_held"] == 1


async def test_an_agencys_files_of_thirty_days_have_a_limit_of_rows(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of too many rows is refused once it is received; what it left behind is deleted."""
    monkeypatch.setattr(seat_file, "CHUNK_LINES", 5)
    monkeypatch.setattr(operations, "CHUNK_LINES", 5)
    monkeypatch.setattr(uploads, "MOST_KEPT_ROWS", 20)
    await entitlements.enroll(cap=50)
    assert (await entitlements.import_file(file_of(14)))["rows"] == 14
    refused = await entitlements.send_file(file_of(5))
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:too-many-results")
    assert (refused.json()["limit"], "maximum in 30 days" in refused.json()["detail"]) == (20, True)
    assert await entitlements.service.admin.fetchval("select count(*) from operation") == 1
    await entitlements.service.admin.execute("update operation set rows = 21")
    assert (await entitlements.send_file(file_of(1))).json()["type"] == refused.json()["type"]
    entitlements.service.clock.move(START + timedelta(days=30, minutes=1))
    assert (await entitlements.import_file(file_of(5)))["rows"] == 5


async def test_what_is_not_there_is_not_found(entitlements: Entitlements) -> None:
    assert (await entitlements.send_file(file_of(1))).status_code == 404
    await entitlements.enroll(cap=1)
    for path in (f"operations/bat_{'0' * 32}", f"operations/bat_{'0' * 32}/results"):
        assert (await entitlements.get(path)).status_code == 404
    operation = await entitlements.import_file(file_of(1))
    token = entitlements.service.token("entitlements:read", agency="GSA")
    reply = await entitlements.service.client.get(operation["results"], headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 404


async def test_results_are_forgotten_after_thirty_days_and_abandoned_uploads_after_an_hour(
    entitlements: Entitlements,
) -> None:
    await entitlements.enroll(cap=5)
    operation = await entitlements.import_file(file_of(2))
    await entitlements.service.admin.execute(
        """
        insert into operation (
            agency_id, operation_id, kind, state, dry_run, on_limit, directory, actor, correlation_id, created_at
        )
        values ('NASA', 'bat_lost', 'import', 'receiving', false, 'fill', false, 'a', 'c', now())
        """
    )
    await entitlements.service.admin.execute(
        "insert into deadline values ('upload-abandoned', 'NASA', 'bat_lost', $1)", START
    )
    entitlements.service.clock.move(START.replace(month=9, day=10))

    async def forgotten() -> bool:
        return await entitlements.results(operation) == []

    await eventually(forgotten)
    left = await entitlements.service.admin.fetch("select operation_id from operation")
    assert [row["operation_id"] for row in left] == [operation["operation_id"]]


async def test_what_arrives_after_a_file_was_discarded_is_not_stored(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=5)
    admin = entitlements.service.admin
    discarded = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"email\n" + b"ada@nasa.gov\n" * 30_000
        await discarded.wait()
        while True:  # the refusal must not wait for the end of the file
            yield b"bob@nasa.gov\n" * 30_000

    sending = asyncio.create_task(entitlements.send_file(slow()))
    await eventually(lambda: admin.fetchval("select count(*) from operation_chunk"))
    entitlements.service.clock.move(START + UPLOAD_LIMIT + timedelta(minutes=1))

    async def is_discarded() -> bool:
        left = "select exists (select from operation) or exists (select from operation_chunk)"
        return not await admin.fetchval(left)

    await eventually(is_discarded)
    await admin.execute("alter table operation_chunk add constraint none_stored check (false)")
    discarded.set()
    refused = await sending
    assert (refused.status_code, refused.json()["type"]) == (408, "urn:muster:problem:upload-too-slow")
