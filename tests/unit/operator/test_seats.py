"""`muster seats` keeps following an operation while a busy service answers with errors."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from muster_operator import seats
from muster_operator.cli import app
from muster_operator.failures import CommandFailed

PATH = "/v1/agencies/NASA/operations/bat_1"


def test_results_that_cannot_be_written_are_named_before_the_file_is_sent(tmp_path: Path) -> None:
    file, results = tmp_path / "seats.csv", tmp_path / "nowhere" / "results.csv"
    file.write_text("email\n", "utf-8")
    arguments = ["seats", "import", str(file), "--agency", "NASA", "--results", str(results)]
    environment = {"MUSTER_ENTITLEMENTS_URL": "http://127.0.0.1:1", "MUSTER_TOKEN": "token", "COLUMNS": "200"}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert (result.exit_code, result.stderr) == (2, f"muster: --results {results}: No such file or directory\n")


@pytest.fixture
def answers() -> Iterator[tuple[str, list[int]]]:
    """A server, and the statuses that it returns in turn; after them, always 200."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses.pop(0) if statuses else 200
            body = json.dumps({"title": "Unavailable", "detail": "Postgres is away", "state": "completed"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", statuses
    server.shutdown()
    server.server_close()
    serving.join()


async def test_an_operation_is_followed_past_a_failover(
    answers: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, statuses = answers
    monkeypatch.setattr(seats, "_RETRY_SECONDS", 0.0)
    statuses += [503, 429, 502, 504]
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await seats._look(http, PATH))["state"] == "completed"
    assert not statuses


@pytest.mark.parametrize(("status", "patience"), [(403, 60.0), (503, -1.0)])
async def test_a_refusal_ends_the_command_and_so_does_a_service_that_stays_away(
    answers: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch, status: int, patience: float
) -> None:
    url, statuses = answers
    statuses += [status]
    monkeypatch.setattr(seats, "_PATIENCE_SECONDS", patience)
    async with httpx.AsyncClient(base_url=url) as http:
        with pytest.raises(CommandFailed, match="Postgres is away"):
            await seats._look(http, PATH)
