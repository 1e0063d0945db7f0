"""What preflight reports about the issuer and the mail server, which it asks over the network as the services do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from joserfc.jwk import KeySet, RSAKey
from pydantic import SecretStr
from typer.testing import CliRunner

from muster_notify.settings import NotifySettings
from muster_operator.cli import app
from muster_operator.preflight.findings import Finding, Status
from muster_operator.preflight.issuer import check_issuer
from muster_operator.preflight.kafka import check_cluster
from muster_operator.preflight.smtp import check_smtp
from muster_operator.preflight.subjects import Subject, environment_of
from muster_operator.target import Target
from muster_runtime.clock import SystemClock
from muster_runtime.settings import Settings

KEYS = KeySet([RSAKey.generate_key(2048, auto_kid=True)]).as_dict(private=False)


@contextmanager
def issuer(behind: timedelta, keys: Any = KEYS) -> Iterator[str]:
    """The address of an issuer whose clock is behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = keys if self.path == "/keys" else {"issuer": address, "jwks_uri": f"{address}/keys"}
            self.send_response_only(200)
            self.send_header("Date", format_datetime(SystemClock().now() - behind))
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield address
        server.shutdown()


async def found(address: str, jwks: str = "") -> list[Finding]:
    settings = Settings(environment="sandbox", oidc_issuer=address, oidc_jwks=jwks)
    return [finding async for finding in check_issuer("billing", settings)]


@pytest.mark.parametrize(
    ("behind", "status", "said"),
    [
        (timedelta(), Status.OK, "agrees"),
        (timedelta(seconds=10), Status.WARNING, "s off"),
        (timedelta(seconds=-40), Status.FAILED, "tokens would be refused"),
    ],
)
async def test_the_issuers_clock_is_compared(behind: timedelta, status: Status, said: str) -> None:
    with issuer(behind) as address:
        keys, clock = await found(address)
    assert (keys.status, keys.found) == (Status.OK, f"{address} has 1 key")
    assert clock.status is status
    assert said in clock.found


async def test_an_issuer_without_keys_has_failed() -> None:
    with issuer(timedelta(), {"keys": []}) as address:
        (empty,) = await found(address)
        (another,) = await found(f"{address}/tenant")
    (away,) = await found("http://127.0.0.1:1")
    (invalid,) = await found("http://127.0.0.1:80a")
    (unset,) = await found("")
    (unknown,) = await found("muster-sandbox")
    for finding, said in (
        (empty, "no usable key"),
        (another, "names the issuer"),
        (away, "cannot be read"),
        (invalid, "cannot be read"),
        (unset, "MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set"),
        (unknown, "MUSTER_OIDC_JWKS must be set"),
    ):
        assert finding.status is Status.FAILED
        assert said in finding.found


async def test_a_mail_server_is_asked_only_if_one_is_set() -> None:
    subject = Subject("notify", NotifySettings(environment="sandbox", smtp_port=1))
    assert [finding async for finding in check_smtp(subject, {})] == []
    (away,) = [finding async for finding in check_smtp(subject, {"MUSTER_SMTP_HOST": "127.0.0.1"})]
    assert (away.status, away.found.startswith("127.0.0.1:1 does not accept a session: ")) == (Status.FAILED, True)


async def test_a_password_or_a_host_that_the_check_cannot_send_is_not_quoted() -> None:
    settings = NotifySettings(environment="sandbox", smtp_username="muster", smtp_password=SecretStr("pä55word"))
    (unchecked,) = [finding async for finding in check_smtp(Subject("notify", settings), {"MUSTER_SMTP_HOST": "x"})]
    assert (unchecked.status, "not ASCII" in unchecked.found, "55word" in str(unchecked)) == (
        Status.WARNING,
        True,
        False,
    )
    settings = NotifySettings(environment="sandbox", smtp_host="mail..example")
    (invalid,) = [finding async for finding in check_smtp(Subject("notify", settings), {"MUSTER_SMTP_HOST": "x"})]
    assert invalid.status is Status.FAILED


async def test_a_credential_whose_absence_prevents_the_check_of_topics_is_named() -> None:
    kafka = {"kafka_bootstrap": "kafka:9093", "kafka_security_protocol": "SASL_SSL"}
    (unchecked,) = [finding async for finding in check_cluster(Target({}, "", "", kafka, ""))]
    assert unchecked.status is Status.WARNING
    assert unchecked.found.startswith("not checked: MUSTER_KAFKA_USERNAME is not set")


def test_each_service_has_its_own_folder_of_secrets_or_the_common_one(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_SECRETS_DIR", str(tmp_path))
    (tmp_path / "notify").mkdir()
    target = Target({}, "", "", {}, "")
    assert environment_of(target, "notify")["MUSTER_SECRETS_DIR"] == str(tmp_path / "notify")
    assert environment_of(target, "billing")["MUSTER_SECRETS_DIR"] == str(tmp_path)


def test_each_service_has_its_own_settings_and_none_of_another_or_of_the_command(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = str(tmp_path)
    (tmp_path / "billing").mkdir()
    own = {"MUSTER_SECRETS_DIR": secrets, "MUSTER_KAFKA_CERTIFICATE_FILE": f"{secrets}/tls.crt"}
    monkeypatch.setenv("MUSTER_PREFLIGHT_SETTINGS", json.dumps({"billing": own, "notify": {"MUSTER_SMTP_PORT": "25"}}))
    monkeypatch.setenv("MUSTER_KAFKA_USERNAME", "administrator")
    monkeypatch.setenv("SSL_CERT_FILE", "/ca.crt")
    target = Target({}, "", "", {}, "")
    found = environment_of(target, "billing")
    assert {name: value for name, value in found.items() if name.startswith("MUSTER_")} == {
        "MUSTER_SECRETS_DIR": f"{secrets}/billing",
        "MUSTER_KAFKA_CERTIFICATE_FILE": f"{secrets}/billing/tls.crt",
    }
    assert found["SSL_CERT_FILE"] == "/ca.crt"
    assert environment_of(target, "enrollment")["MUSTER_KAFKA_USERNAME"] == "administrator"


def test_settings_that_cannot_be_read_are_bad_input_and_are_not_quoted() -> None:
    for text in ("billing", '{"billing": {"MUSTER_HTTP_PORT": 8000}}'):
        result = CliRunner().invoke(app, ["preflight", "--service=billing"], env={"MUSTER_PREFLIGHT_SETTINGS": text})
        assert result.exit_code == 2
        assert result.stderr.startswith('muster: MUSTER_PREFLIGHT_SETTINGS must be JSON, such as {"billing": ')
        assert "8000" not in result.stderr


def test_an_unknown_service_is_bad_input() -> None:
    result = CliRunner().invoke(app, ["preflight", "--service=payroll"])
    assert (result.exit_code, result.stderr.startswith("muster: --service payroll: must be one of ")) == (2, True)
