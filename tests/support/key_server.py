"""An issuer's key server over real HTTP: it answers, fails, hangs, or trickles bytes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

# Shorter than any read timeout: a client with only a read timeout never gives up.
BETWEEN_BYTES = 0.05


class KeyServer:
    """Serves a key set and counts the requests; in the manner `trickle`, it sends single bytes without end.

    `metadata`, by full path, serves paths below `/.well-known/`; it is empty at first.
    """

    def __init__(self, document: object, manner: Literal["answer", "fail", "hang", "trickle"] = "answer") -> None:
        self.document = document
        self.manner = manner
        self.asked = 0
        self.metadata: dict[str, object] = {}
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                manner = outer.manner
                if manner == "hang":
                    outer._closing.wait()
                    return
                unknown = self.path.startswith("/.well-known/") and self.path not in outer.metadata
                self.send_response(404 if unknown else 500 if manner == "fail" else 200)
                self.end_headers()
                while manner == "trickle" and not outer._closing.wait(BETWEEN_BYTES):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
                self.wfile.write(json.dumps(outer.metadata.get(self.path, outer.document)).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.origin}/jwks.json"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> "KeyServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
