"""The self-test waits for every reader, names late ones, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from muster_contracts import SERVICES, Position
from muster_operator.failures import TimedOut
from muster_operator.self_test import _applied
from muster_operator.service import Service


class Reader:
    """A service whose stream is at these sequences, one for each request; the last one stays."""

    def __init__(self, *sequences: int) -> None:
        self._sequences = list(sequences)

    async def get(self, _path: str, **_query: str) -> Any:
        sequence = self._sequences.pop(0) if len(self._sequences) > 1 else self._sequences[0]
        return {"items": [{"applied": {"epoch": 1, "sequence": sequence} if sequence else None}]}


async def test_each_reader_is_waited_for() -> None:
    readers = {"billing": Reader(0, 6, 7), "notify": Reader(9)}
    took = await _applied(cast("dict[str, Service]", readers), Position(1, 7), 30)
    assert list(took) == ["billing", "notify"]
    assert took["billing"] > took["notify"] >= 0


async def test_a_reader_that_is_late_is_named() -> None:
    readers = {"billing": Reader(6), "notify": Reader(7)}
    with pytest.raises(TimedOut, match=r"^after 0 s the event is not applied by billing: see muster status$"):
        await _applied(cast("dict[str, Service]", readers), Position(1, 7), 0)


def test_a_self_test_that_gets_sigterm_revokes_its_authorization(tmp_path: Path) -> None:
    posted: list[str] = []
    asked = threading.Semaphore(0)

    class Behind(BaseHTTPRequestHandler):
        """Every service at once: it records the authorization, and never applies its event."""

        def do_GET(self) -> None:
            self._answer({"items": [{"produced": {"epoch": 1, "sequence": 7}, "applied": None}]})
            asked.release()

        def do_POST(self) -> None:
            posted.append(self.path.rpartition("/")[2])
            self.rfile.read(int(self.headers["content-length"]))
            self._answer({"authorization_id": "atu_1"})

        def _answer(self, body: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Behind) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        urls = {f"MUSTER_{name.upper()}_URL": f"http://127.0.0.1:{server.server_port}" for name in SERVICES}
        with subprocess.Popen(
            [sys.executable, "-m", "muster_operator", "self-test"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MUSTER_TOKEN": "token", **urls},
        ) as command:
            assert all(asked.acquire(timeout=30) for _ in range(10))
            command.send_signal(signal.SIGTERM)
            assert command.wait(timeout=10) == 130
        server.shutdown()
    assert posted == ["authorizations", "revocation"]
