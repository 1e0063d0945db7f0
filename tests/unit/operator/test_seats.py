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
COMPLETED = {
    "state": "completed",
    "progress": 1.0,
    "rows_per_second": None,
    "stop_reason": None,
    "rows": 1,
    "assigned": 1,
    "already_held": 0,
    "refused": 0,
    "results": f"{PATH}/results",
}


# The results are longer than what the server sends.
PARTIAL = b"email,result\n"


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
        def do_POST(self) -> None:
            while self.rfile.readline() != b"0\r\n":  # the last chunk
                pass
            self.send_response(202)
            self.send_header("location", PATH)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            if self.path == f"{PATH}/results":
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(PARTIAL)
                return
            status = statuses.pop(0) if statuses else 200
            body = json.dumps({"title": "Unavailable", "detail": "Postgres is away", **COMPLETED}).encode()
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


@pytest.mark.parametrize(
    ("results", "status", "reason"),
    [("results.csv", 5, "entitlements does not answer: peer closed connection"), ("/dev/full", 2, "No space left")],
)
def test_results_that_break_off_are_incomplete(
    answers: tuple[str, list[int]], tmp_path: Path, results: str, status: int, reason: str
) -> None:
    file, written = tmp_path / "seats.csv", tmp_path / results
    file.write_text("email\n", "utf-8")
    arguments = ["seats", "import", str(file), "--agency", "NASA", "--results", str(written)]
    environment = {"MUSTER_ENTITLEMENTS_URL": answers[0], "MUSTER_TOKEN": "token", "COLUMNS": "400"}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert (result.exit_code, len(result.stderr.splitlines())) == (status, 1), result.output
    assert result.stderr.startswith(f"muster: --results {written} is incomplete: {reason}")
    assert "import the file again" in result.stderr
