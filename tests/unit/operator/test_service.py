"""An operator's requests to a service that does not answer, or to something else that does."""

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from muster_local.certificates import Authority
from muster_operator import service
from muster_operator.cli import app
from muster_operator.failures import Unreachable
from muster_operator.session.tokens import Credential

HOST = "127.0.0.1"


class NoStreams(BaseHTTPRequestHandler):
    """A service that has no streams."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_arguments: object) -> None: ...


async def test_a_service_that_accepts_no_connection_is_soon_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Like behind a firewall that drops packets: the queue of connections is full, and nothing accepts one."""
    monkeypatch.setattr(service, "CONNECT_SECONDS", 0.2)
    with socket.create_server((HOST, 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        url = f"http://{HOST}:{full.getsockname()[1]}"
        async with service.connect("billing", url, Credential("the test", lambda: "token")) as billing:
            with pytest.raises(Unreachable, match="billing does not answer"):
                await billing.get("/v1/streams")


async def test_a_service_that_refuses_connections_at_first_is_asked_again() -> None:
    """As in a new pod, whose address the network policies of other nodes do not know yet."""
    with ThreadingHTTPServer((HOST, 0), NoStreams, bind_and_activate=False) as server:
        server.server_bind()  # its port refuses connections until it listens

        def admit() -> None:
            server.server_activate()
            server.handle_request()

        admission = threading.Timer(0.2, admit)
        admission.start()
        url = f"http://{HOST}:{server.server_address[1]}"
        async with service.connect("billing", url, Credential("the test", lambda: "token")) as billing:
            assert await billing.get("/v1/streams") == []
        admission.join()


async def test_a_certificate_of_the_sites_own_authority_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.load(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.issue("billing").both)
    with ThreadingHTTPServer((HOST, 0), NoStreams) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"https://{HOST}:{server.server_port}"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        async with service.connect("billing", url, Credential("the test", lambda: "token")) as billing:
            assert await billing.get("/v1/streams") == []
        monkeypatch.delenv("SSL_CERT_FILE")
        async with service.connect("billing", url, Credential("the test", lambda: "token")) as billing:
            with pytest.raises(Unreachable, match=r"billing does not answer: .*certificate verify failed"):
                await billing.get("/v1/streams")
        server.shutdown()


@pytest.fixture
def front() -> Iterator[str]:
    """A proxy in front of the services: it redirects to https, and shows a page for everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<html>Log in</html>"
            self.send_response(308 if self.path.startswith("/v1") else 200)
            self.send_header("location", f"https://muster.example{self.path}")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://{HOST}:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "found"),
    [("", "the reply is 308 Permanent Redirect to https://muster.example/v1/"), ("/login", "the reply is not JSON")],
)
@pytest.mark.parametrize("command", ["agency list", "agency withdraw NASA --reason abc"])
def test_a_reply_that_is_not_the_services_is_named(front: str, command: str, path: str, found: str) -> None:
    environment = {"MUSTER_ENROLLMENT_URL": front + path, "MUSTER_TOKEN": "token"}
    result = CliRunner().invoke(app, command.split(), env=environment)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert result.stderr.startswith(f"muster: enrollment: {found}")
    assert result.stderr.endswith("MUSTER_ENROLLMENT_URL must be the service's own address\n")


SEATS = ["seats", "import", __file__, "--agency", "NASA"]


@pytest.mark.parametrize(("command", "name"), [(["agency", "list"], "ENROLLMENT"), (SEATS, "ENTITLEMENTS")])
def test_an_address_that_cannot_be_requested_is_named(command: list[str], name: str) -> None:
    environment = {f"MUSTER_{name}_URL": "http://ada:pa/ss@127.0.0.1:80", "MUSTER_TOKEN": "token"}
    result = CliRunner().invoke(app, command, env=environment)
    said = f"muster: MUSTER_{name}_URL must be a URL, such as https://{name.lower()}.example\n"
    assert (result.exit_code, result.stderr) == (2, said)


@pytest.mark.parametrize("stray", ["\r", " ", "\n", "\u00fc"])
@pytest.mark.parametrize(("command", "name"), [(["agency", "list"], "ENROLLMENT"), (SEATS, "ENTITLEMENTS")])
def test_a_token_that_cannot_be_sent_is_not_printed(command: list[str], name: str, stray: str) -> None:
    environment = {f"MUSTER_{name}_URL": f"http://{HOST}:1", "MUSTER_TOKEN": f"eyJhbGciOiJub25lIn0{stray}"}
    result = CliRunner().invoke(app, command, env=environment)
    assert (result.exit_code, len(result.stderr.splitlines()), "eyJ" in result.output) == (2, 1, False), result.output
    assert "--token or MUSTER_TOKEN: the token contains characters that no token may have" in result.stderr
