"""The service as a process: killed mid-import again and again, with a lost caller, and driven by the command."""

import asyncio
import os
import random
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from muster_contracts.entitlements import SeatAssigned, SeatBatchCompleted, SeatRevoked
from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.process.running import running
from muster_runtime.process.start_checks import StartRefused
from tests.integration.entitlements.conftest import Entitlements, ProcessStarter
from tests.support.eventually import eventually

ROWS = 100_000
KILLS = 5


async def test_an_import_killed_again_and_again_ends_as_a_clean_run(
    front: Entitlements, start_process: ProcessStarter
) -> None:
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    clean = Entitlements(front.service, agency="GSA")
    for agency in (front, clean):
        await agency.enroll(cap=ROWS - 1_000)
    # Long names make many chunks; some rows are refused, some are of people who already have a seat.
    name = "n" * 180
    people = [f"person.{n if n % 97 else 7}@{'nasa.gov' if n % 89 else 'example.com'},{name}" for n in range(ROWS)]
    file = "\n".join(["email,name", *people])
    accepted = await front.send_file(file)
    path = accepted.headers["location"]

    async def chunks_done() -> int:
        done: int = await front.service.admin.fetchval("select chunks_done from operation where agency_id = 'NASA'")
        return done

    for _ in range(KILLS):
        before = await chunks_done()
        process = await start_process("relay", "worker")

        async def going(before: int = before) -> bool:
            return await chunks_done() > before

        await eventually(going, timeout=60, prompt=True)
        await asyncio.sleep(chance.random() * 0.2)
        process.kill()
        await process.wait()
    assert (await front.service.client.get(path)).json()["state"] == "running"

    await start_process("relay", "worker")
    killed = await front.finished(accepted, timeout=120)
    unharmed = await clean.import_file(file)

    for figure in ("state", "rows", "assigned", "already_held", "refused", "progress"):
        assert killed[figure] == unharmed[figure]
    assert killed["rows"] == ROWS
    assert [_without_subject(row) for row in await front.results(killed)] == [
        _without_subject(row) for row in await clean.results(unharmed)
    ]
    assert await _seats(front) == await _seats(clean)
    assert (await front.pool())["in_use"] == (await clean.pool())["in_use"] == killed["assigned"]
    assert await _events(front, killed["assigned"]) == await _events(clean, killed["assigned"])


async def test_a_withdrawal_killed_again_and_again_revokes_every_seat_once(
    front: Entitlements, start_process: ProcessStarter
) -> None:
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    seats = 60_000
    await front.enroll(cap=seats)
    worker = await start_process("relay", "worker")
    people = "\n".join(["email", *(f"person.{n}@nasa.gov" for n in range(seats))])
    assert (await front.import_file(people))["assigned"] == seats
    worker.kill()
    await worker.wait()
    await front.service.publish(front.withdrawn())

    async def revoking() -> int:
        left: int = (await front.pool())["revoking"]
        return left

    await eventually(revoking)
    for _ in range(KILLS):
        before = await revoking()
        process = await start_process("relay", "scheduler")

        async def going(before: int = before) -> bool:
            return await revoking() < before

        await eventually(going, timeout=60, prompt=True)
        await asyncio.sleep(chance.random() * 0.05)
        process.kill()
        await process.wait()
    assert await revoking() > 0
    # A later enrollment does not wait for it, and its seats are not taken back with the others.
    await front.enroll(cap=1, enrollment_id="enr_2")
    assert (await front.assign("new")).status_code == 201

    await start_process("relay", "scheduler")

    async def over() -> bool:
        return await revoking() == 0 and bool(
            await front.service.admin.fetchval("select not exists (select from outbox)")
        )

    await eventually(over, timeout=120)
    revoked = {event.envelope.sequence: event for event in await front.service.published(SeatRevoked)}
    assert len(revoked) == len({event.data.seat_id for event in revoked.values()}) == seats
    assert await front.service.admin.fetchval("select count(*) from seat where state <> 'revoked'") == 1
    assert ((await front.pool())["in_use"], (await front.check("new"))["verdict"]) == (1, "allowed")


async def test_a_file_whose_connection_is_lost_changes_nothing(
    front: Entitlements, start_process: ProcessStarter
) -> None:
    await front.enroll(cap=1_000_000)
    port = _free_port()
    await start_process("api", port=port)
    writer = await _connected(front, port)
    body = "\n".join(["email", *(f"person.{n}@nasa.gov" for n in range(100_000))]).encode()
    writer.write(
        b"POST /v1/agencies/NASA/seat-imports HTTP/1.1\r\nHost: entitlements\r\nContent-Type: text/csv\r\n"
        + f"Authorization: {front.service.client.headers['Authorization']}\r\n".encode()
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[: len(body) // 2]
    )
    await writer.drain()
    admin = front.service.admin
    await eventually(lambda: admin.fetchval("select count(*) > 1 from operation_chunk"))
    writer.close()

    await eventually(lambda: admin.fetchval("select not exists (select from operation_chunk)"))
    assert await admin.fetchval("select not exists (select from operation)")
    assert (await front.pool())["in_use"] == 0


async def test_the_command_sends_a_file_and_follows_it(
    front: Entitlements, start_process: ProcessStarter, tmp_path: Path
) -> None:
    await front.enroll(cap=20_000)
    port = _free_port()
    await start_process("api", "worker", port=port)
    (await _connected(front, port)).close()
    file, results = tmp_path / "seats.csv", tmp_path / "results.csv"
    file.write_text("\n".join(["E-Mail", *(f"person.{n}@nasa.gov" for n in range(20_003))]), "utf-8")

    async def seats_import(*options: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "muster_operator", "seats", "import", str(file), f"--home={tmp_path / 'home'}"),
            *options,
            env=os.environ
            | {
                "MUSTER_ENTITLEMENTS_URL": f"http://127.0.0.1:{port}",
                "MUSTER_TOKEN": front.service.client.headers["Authorization"].removeprefix("Bearer "),
                "COLUMNS": "200",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    status, said = await seats_import("--agency=NASA", "--dry-run")
    assert (status, "Dry run" in said, "20,003" in said, "--results FILE" in said) == (1, True, True, True), said
    assert (await front.pool())["in_use"] == 0
    status, said = await seats_import("--agency=NASA", "--on-limit=stop", f"--results={results}")
    assert (status, "Stopped: seat-cap-reached" in said, "--results FILE" in said) == (1, True, False), said
    assert results.read_text("utf-8").splitlines()[-1].endswith(',refused,"no seat is free"')
    assert (await front.pool())["in_use"] == 20_000
    file.write_text("e-mail\nperson.1@nasa.gov\n", "utf-8")
    assert (await seats_import("--agency=NASA"))[0] == 0
    status, said = await seats_import("--agency=GSA")
    assert (status, "has never been enrolled" in said) == (3, True), said


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def _connected(front: Entitlements, port: int) -> asyncio.StreamWriter:
    """A connection to a process, once it listens."""

    async def connect() -> asyncio.StreamWriter | None:
        try:
            return (await asyncio.open_connection("127.0.0.1", port))[1]
        except ConnectionRefusedError:
            return None

    writer: asyncio.StreamWriter = await eventually(connect, timeout=60)
    return writer


async def _seats(entitlements: Entitlements) -> list[tuple[Any, ...]]:
    rows = await entitlements.service.admin.fetch(
        "select email, name, state from seat where agency_id = $1 order by email", entitlements.agency
    )
    return [tuple(row) for row in rows]


async def _events(entitlements: Entitlements, assigned: int) -> tuple[list[int], set[str], list[dict[str, Any]]]:
    """The sequences, the types, and the sums of the events; an event that arrived twice counts once."""

    async def all_there() -> bool:
        return bool(await entitlements.service.admin.fetchval("select count(*) = 0 from outbox"))

    await eventually(all_there, timeout=60)
    seats = await entitlements.service.published(SeatAssigned)
    own = {event.envelope.sequence: event for event in seats if event.data.agency_id == entitlements.agency}
    assert len({event.data.subject_ref for event in own.values()}) == len({e.data.seat_id for e in own.values()})
    assert len(own) == assigned
    batches = await entitlements.service.published(SeatBatchCompleted)
    sums = {
        event.envelope.sequence: event.data.model_dump(exclude={"agency_id", "batch_id"})
        for event in batches
        if event.data.agency_id == entitlements.agency
    }
    return sorted(own), {event.envelope.type for event in own.values()}, list(sums.values())


def _without_subject(row: dict[str, str]) -> tuple[str, ...]:
    return row["line"], row["outcome"], row["reason"], str(bool(row["subject"]))


async def test_a_subject_key_other_than_the_first_is_refused(front: Entitlements) -> None:
    """It would give everyone a second reference, and with it a second seat."""
    settings = front.service.runtime.settings
    assert isinstance(settings, EntitlementsSettings)
    changed = settings.model_copy(update={"subject_key": SecretStr("another-subject-key")})
    with pytest.raises(StartRefused, match="MUSTER_SUBJECT_KEY is not the key from the first start"):
        async with running(build(changed), frozenset()):
            pass
    async with running(build(settings), frozenset()):
        pass
