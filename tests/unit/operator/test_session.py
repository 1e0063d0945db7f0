"""A login's client follows its provider's answers (RFC 8628), and says what is wrong with the environment."""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from muster_operator.failures import BadInput, CommandFailed, Refused, TimedOut, Unreachable
from muster_operator.session.cache import Session, SessionCache
from muster_operator.session.commands import approved
from muster_operator.session.oauth import Client, Tokens
from muster_operator.session.tokens import find_credential
from muster_runtime.clock import SystemClock
from tests.support.eventually import eventually

TOKEN = {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300}
BEGUN = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://id.test/device", "interval": 3}


class Provider:
    """Answers each token request with the next of its answers; `closes` closes the connection instead.

    A `slow` one waits for `answers`.
    """

    def __init__(self, *answers: Any, begun: Mapping[str, Any] = BEGUN, slow: bool = False, **metadata: Any) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        if not slow:
            self.answers.set()
        waiting = list(answers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(404 if "openid" in self.path else 200, outer.metadata)

            def do_POST(self) -> None:
                outer.asked.append(self.rfile.read(int(self.headers["content-length"])).decode())
                outer.answers.wait()
                found = dict(begun) if self.path == "/device" else waiting.pop(0)
                if found == "closes":
                    self.connection.close()
                elif isinstance(found, dict):
                    self.answer(200, found)
                else:
                    self.answer(400, {"error": found})

            def answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.metadata = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "device_authorization_endpoint": f"{self.issuer}/device",
        } | metadata

    @property
    def client(self) -> Client:
        return Client(self.issuer, "muster-cli", resource="urn:muster:api")


@contextmanager
def answering(*answers: Any, **options: Any) -> Iterator[Provider]:
    provider = Provider(*answers, **options)
    threading.Thread(target=provider.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        provider.server.server_close()


def test_a_login_polls_as_slowly_as_the_provider_asks() -> None:
    waits: list[float] = []
    with answering("authorization_pending", "slow_down", "authorization_pending", "closes", TOKEN) as provider:
        assert approved(provider.client, waits.append).access_token == "opaque"
        assert waits == [3, 3, 8, 8, 16]
        assert provider.asked[0] == "client_id=muster-cli&scope=openid+offline_access&resource=urn%3Amuster%3Aapi"
        assert "device_code=d" in provider.asked[1]


@pytest.mark.parametrize(
    ("answers", "begun", "failure", "says"),
    [
        (["access_denied"], {}, Refused, "denied"),
        (["expired_token"], {}, TimedOut, "expired"),
        (["invalid_client"], {}, Refused, "invalid_client"),
        ([{"access_token": "x", "token_type": "DPoP"}], {}, Refused, "without a bearer token"),
        ([], {"expires_in": 2}, TimedOut, "nobody approved"),
        ([], {"user_code": "\x1b[2J"}, Refused, "valid user_code"),
        ([], {"verification_uri": None}, Refused, "valid verification_uri"),
    ],
)
def test_a_login_that_fails_says_why(
    answers: list[Any], begun: dict[str, Any], failure: type[CommandFailed], says: str
) -> None:
    with answering(*answers, begun=BEGUN | begun) as provider, pytest.raises(failure, match=says):
        approved(provider.client, lambda _: None)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"issuer": "http://elsewhere.test"}, "names the issuer 'http://elsewhere.test'"),
        ({"device_authorization_endpoint": "file:///etc/passwd"}, "not https"),
        ({"token_endpoint": 7}, "no token_endpoint"),
    ],
)
def test_metadata_that_are_not_the_issuers_are_not_followed(metadata: dict[str, Any], says: str) -> None:
    with answering(TOKEN, **metadata) as provider, pytest.raises(Refused, match=says):
        approved(provider.client, lambda _: None)


def test_a_provider_that_does_not_answer_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 does not answer"):
        Client("http://127.0.0.1:1", "muster-cli").by_credentials()
    with pytest.raises(BadInput, match=r"MUSTER_OIDC_ISSUER: http://127\.0\.0\.1:80a .* must be URLs"):
        Client("http://127.0.0.1:80a", "muster-cli").by_credentials()


def test_a_provider_needs_no_file_of_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with answering(TOKEN) as provider:
        assert provider.client.by_credentials().access_token == "opaque"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "MUSTER_OIDC_ISSUER is not set"),
        ({"MUSTER_OIDC_ISSUER": "https://id.test"}, "MUSTER_CLIENT_ID is not set"),
        ({"MUSTER_OIDC_ISSUER": "id.test", "MUSTER_CLIENT_ID": "a"}, "id.test must be a URL"),
        ({"MUSTER_OIDC_ISSUER": "http://id.test", "MUSTER_CLIENT_ID": "a"}, "must be https"),
        (
            {
                "MUSTER_OIDC_ISSUER": "https://id.test",
                "MUSTER_CLIENT_ID": "a",
                "MUSTER_CLIENT_SECRET": "a",
                "MUSTER_CLIENT_SECRET_FILE": "b",
            },
            "are both set",
        ),
        (
            {
                "MUSTER_OIDC_ISSUER": "https://id.test",
                "MUSTER_CLIENT_ID": "a",
                "MUSTER_CLIENT_SECRET_FILE": "/none/secret",
            },
            "MUSTER_CLIENT_SECRET_FILE: /none/secret cannot be read",
        ),
    ],
    ids=str,
)
def test_what_the_environment_lacks_is_named(
    environment: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OIDC_ISSUER", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_SECRET_FILE"):
        monkeypatch.delenv(f"MUSTER_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=says):
        Client.of_environment()


def test_what_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert find_credential("given", lambda: "of the stack").token() == "given"
    assert find_credential("", lambda: "of the stack").token() == "of the stack"
    with pytest.raises(BadInput, match="run muster login"):
        find_credential("", None)
    with answering(TOKEN) as provider:
        monkeypatch.setenv("MUSTER_OIDC_ISSUER", provider.issuer)
        monkeypatch.setenv("MUSTER_CLIENT_ID", "program")
        monkeypatch.setenv("MUSTER_CLIENT_SECRET", "secret")
        own = find_credential("", lambda: "of the stack")
        assert [own.token(), own.token()] == ["opaque"] * 2
        assert len(provider.asked) == 1, "one token serves until it is about to end"


async def test_a_logout_is_final_even_while_a_command_refreshes_the_session(tmp_path: Path) -> None:
    cache = SessionCache(tmp_path / "muster")
    assert cache.remove() is None
    assert not cache.folder.exists()
    with answering({**TOKEN, "refresh_token": "next"}, slow=True) as provider, ThreadPoolExecutor(2) as commands:
        stale = Tokens("old", SystemClock().now(), "first")
        cache.save(Session.of(provider.client, stale))
        refreshing = commands.submit(cache.token)
        await eventually(lambda: provider.asked)
        leaving = commands.submit(cache.remove)
        wait([leaving], timeout=0.2)  # a logout that does not wait has ended by then
        provider.answers.set()
        left = leaving.result()
        assert refreshing.result() == "opaque"
    assert (cache.find(), left and left.refresh_token) == (None, "next")


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_damaged_session_is_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "muster"
    folder.mkdir(mode=0o700)
    file = folder / "session.json"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(BadInput, match="damaged: run muster login"):
        SessionCache(folder).find()


def test_a_session_behind_a_link_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "muster"
    folder.mkdir(mode=0o700)
    (folder / "session.json").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="cannot be read"):
        SessionCache(folder).find()
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(BadInput, match="symbolic link"):
        SessionCache(tmp_path / "linked").find()
