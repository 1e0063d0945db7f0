"""How `muster status` reports processes and servers."""

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster_local.certificates import Authority
from muster_local.home import ProcessState
from muster_local.readiness import Readiness, ask
from muster_local.status import _ago, _as_json, _last_words, _ready
from muster_runtime.clock import SystemClock


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (timedelta(seconds=-3), "0 s ago"),  # the clock was set back
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=14, seconds=59), "14 min ago"),
        (timedelta(hours=23, minutes=59), "23 h ago"),
        (timedelta(days=3), "3 d ago"),
    ],
)
def test_how_long_ago(passed: timedelta, shown: str) -> None:
    assert _ago(passed) == shown


def test_a_restarted_process_is_shown_with_its_exit_and_its_last_lines() -> None:
    process = ProcessState(
        name="billing",
        address="http://127.0.0.1:1",
        pid=2,
        restarts=1,
        last_exit="killed by SIGKILL",
        last_exit_at=SystemClock().now() - timedelta(minutes=14, seconds=1),
        last_lines=["its last line"],
    )
    said, line = _last_words(process, Readiness(ready=False))
    assert said == "\n[yellow]billing restarted 1×[/yellow] (killed by SIGKILL, 14 min ago)"
    assert str(line) == "its last line"
    assert _last_words(process, Readiness(ready=True)) == [said]  # its lines are history


def test_the_time_of_an_exit_is_written_like_any_instant() -> None:
    process = ProcessState(name="billing", address="http://127.0.0.1:1", last_exit_at=datetime(2026, 8, 6, tzinfo=UTC))
    assert _as_json(process, Readiness(ready=True))["last_exit_at"] == "2026-08-06T00:00:00Z"


@pytest.mark.parametrize(
    ("maintenance", "warnings", "shown"),
    [
        (False, (), "[green]yes[/green]"),
        (True, (), "[yellow]yes, in maintenance[/yellow]"),
        (True, ("1 deadline is parked",), "[yellow]yes, in maintenance, but:[/yellow] 1 deadline is parked"),
    ],
)
def test_a_service_in_maintenance_is_not_simply_ready(maintenance: bool, warnings: tuple[str, ...], shown: str) -> None:
    process = ProcessState(name="billing", address="http://127.0.0.1:1", maintenance=maintenance)
    assert _ready(process, Readiness(ready=True, warnings=warnings)) == shown


async def test_a_rejected_certificate_is_the_reason(tmp_path: Path) -> None:
    issued = Authority.load(tmp_path / "one").issue("postgres")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(8)  # Postgres' SSLRequest
            writer.write(b"S")
            await writer.start_tls(context)
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        other = Authority.load(tmp_path / "other").certificate
        dsn = f"postgresql://postgres:secret@127.0.0.1:{port}/muster?sslmode=verify-full&sslrootcert={other}"
        answer = await ask("postgres", dsn)
    assert (answer.ready, len(answer.reasons)) == (False, 1)
    assert answer.reasons[0].startswith("its certificate is not accepted: ")
