"""An identity provider's token endpoint, over real HTTP: client credentials get a token (RFC 6749, 4.4)."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs

from tests.support.secured_kafka import KafkaTokens


class TokenEndpoint:
    """Issues tokens that live for `seconds` to the client that knows `secret`."""

    def __init__(self, tokens: KafkaTokens, secret: str, seconds: int = 3600) -> None:
        self.secret = secret
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked += 1
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                basic = self.headers["Authorization"].removeprefix("Basic ")
                client, _, secret = base64.b64decode(basic).partition(b":")
                good = secret.decode() == outer.secret and form["grant_type"] == ["client_credentials"]
                self.send_response(200 if good else 401)
                self.end_headers()
                token = tokens.token(client.decode())
                self.wfile.write(json.dumps({"access_token": token, "expires_in": seconds} if good else {}).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
