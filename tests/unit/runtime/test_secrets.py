"""Secrets from files: where they are read from, how they are replaced, and what production refuses."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from muster_runtime.cli import _built
from muster_runtime.secrets import FileSecret, SecretUnusable, explain
from muster_runtime.settings import Settings

STRONG, OTHER = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
CANARY = "canary-0123456789"
EXAMPLE = "postgres-password-123"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MUSTER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str], Path]:
    """Give a secret's file new content as Kubernetes does: by switching the link to its folder."""
    (tmp_path / "mounted").mkdir()
    file = tmp_path / "mounted" / "MUSTER_KAFKA_PASSWORD"
    file.symlink_to(Path("..data") / file.name)

    def write(text: str) -> Path:
        folder = tmp_path / "mounted" / f"..{secrets.token_hex(4)}"
        folder.mkdir()
        (folder / file.name).write_text(text)
        link = tmp_path / "mounted" / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(tmp_path / "mounted" / "..data")
        return file

    return write


def test_a_secret_is_in_its_variable_or_in_a_file_or_in_the_folder(
    tmp_path: Path, put: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = put(STRONG + "\n")
    monkeypatch.setenv("MUSTER_ENVIRONMENT", "sandbox")
    monkeypatch.setenv("MUSTER_KAFKA_SECURITY_PROTOCOL", "SSL")
    assert Settings().kafka_password.get_secret_value() == ""
    monkeypatch.setenv("MUSTER_SECRETS_DIR", str(mounted.parent))
    assert Settings().kafka_password.get_secret_value() == STRONG

    own = tmp_path / "own"
    own.write_text(OTHER)
    monkeypatch.setenv("MUSTER_KAFKA_PASSWORD_FILE", str(own))
    assert Settings().kafka_password.get_secret_value() == OTHER
    monkeypatch.setenv("MUSTER_KAFKA_PASSWORD", STRONG)
    with pytest.raises(SecretUnusable, match="MUSTER_KAFKA_PASSWORD and MUSTER_KAFKA_PASSWORD_FILE are both set"):
        Settings()
    monkeypatch.delenv("MUSTER_KAFKA_PASSWORD_FILE")
    assert Settings().kafka_password.get_secret_value() == STRONG  # before the folder's


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_secret_ends_the_start_with_one_line(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("MUSTER_POSTGRES_API_DSN_FILE", str(tmp_path / "secret"))
    with pytest.raises(typer.Exit) as ended:
        _built(Settings)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.startswith("MUSTER_POSTGRES_API_DSN_FILE: the file ")


def test_a_secret_is_read_again_when_its_file_is_replaced_and_a_bad_content_changes_nothing(
    put: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_KAFKA_PASSWORD_FILE", str(put(STRONG)))
    monkeypatch.setenv("MUSTER_KAFKA_SECURITY_PROTOCOL", "SSL")
    settings = Settings()
    held = settings.kafka_password
    put(OTHER + "\n")
    assert held.get_secret_value() == OTHER
    assert settings.warnings == []

    with capture_logs() as lines:
        for bad, why in (
            ("", "the file is empty"),
            ("short-canary", "at least 16 characters"),
            ("changeme" * 3, "random"),
        ):
            put(bad)
            assert held.get_secret_value() == OTHER
            (warning,) = settings.warnings
            assert "MUSTER_KAFKA_PASSWORD_FILE" in warning
            assert why in warning
    assert [line["event"] for line in lines] == ["secret_rejected"] * 3
    assert "canary" not in str(lines)
    put(STRONG)
    assert held.get_secret_value() == STRONG
    assert settings.warnings == []


def test_a_file_that_vanishes_leaves_the_last_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(STRONG)
    secret = FileSecret("MUSTER_X_FILE", file)
    file.unlink()
    assert secret.get_secret_value() == STRONG
    assert "No such file" in str(secret.rejection)
    assert STRONG not in f"{secret!r} {secret}"


TLS = "?sslmode=verify-full"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"postgres_api_dsn": f"postgresql://a:{STRONG}@db/d"}, "MUSTER_POSTGRES_API_DSN: production requires sslmode"),
        ({"postgres_worker_dsn": f"postgresql://a:{STRONG}@db/d?sslmode=require"}, "MUSTER_POSTGRES_WORKER_DSN: "),
        ({"postgres_owner_dsn": f"postgresql://a:{CANARY[:9]}@db/d{TLS}"}, "MUSTER_POSTGRES_OWNER_DSN: the password: "),
        ({"postgres_api_dsn": f"postgresql://a:{EXAMPLE}@db/d{TLS}"}, "not a default or an example"),
        ({"postgres_api_dsn": f"postgresql://a@db/d{TLS}"}, "requires a password or a client certificate"),
        ({"kafka_bootstrap": "kafka:9092"}, "MUSTER_KAFKA_SECURITY_PROTOCOL: production requires SSL or SASL_SSL"),
        ({"kafka_security_protocol": "SASL_SSL"}, "MUSTER_KAFKA_USERNAME is not set"),
        ({"kafka_security_protocol": "SASL_SSL", "kafka_username": "u"}, "MUSTER_KAFKA_PASSWORD is not set"),
        ({"kafka_security_protocol": "SASL_SSL", "kafka_username": "u", "kafka_password": CANARY[:9]}, "at least 16"),
        ({"kafka_security_protocol": "SSL", "kafka_certificate_file": "c.pem"}, "MUSTER_KAFKA_KEY_FILE is not set"),
        (
            {
                "kafka_security_protocol": "SASL_SSL",
                "kafka_sasl_mechanism": "OAUTHBEARER",
                "kafka_token_url": "https://i",
            },
            "MUSTER_KAFKA_CLIENT_ID is not set",
        ),
        ({"oidc_issuer": "http://login"}, "MUSTER_OIDC_ISSUER: production requires https"),
        ({"oidc_jwks": "http://login/keys"}, "MUSTER_OIDC_JWKS: production requires https"),
        ({"oidc_jwks": f"https://{CANARY}@login/keys"}, "MUSTER_OIDC_JWKS: must have no user and no password"),
        ({"kafka_password": STRONG}, "MUSTER_KAFKA_PASSWORD is set, but MUSTER_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
        *(
            ({"kafka_security_protocol": "SSL", "kafka_client_secret": example}, "MUSTER_KAFKA_CLIENT_SECRET: ")
            for example in (
                "changeme",
                "password",
                "secret",
                "muster",
                "my-secret-password",
                "0123456789" * 2,
                "x" * 40,
            )
        ),
    ],
)
def test_production_refuses_what_is_weak_and_never_shows_it(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"environment": "production", **settings})
    line = explain(refused.value)
    assert complaint in line
    assert "canary" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "postgres_api_dsn": f"postgresql://a:{STRONG}@first,second/d{TLS}&sslrootcert=/ca.pem",
            "postgres_owner_dsn": "",
        },
        {"postgres_api_dsn": f"postgresql://a@db/d{TLS}&sslcert=/c.pem&sslkey=/k.pem"},
        {"postgres_api_dsn": "postgresql://a@/d?host=/var/run/postgresql"},
        {
            "postgres_api_dsn": f"postgresql://a:{STRONG}@db/d",
            "kafka_bootstrap": "kafka:9092",
            "allow_plaintext": "true",
        },
        {"kafka_security_protocol": "SASL_SSL", "kafka_username": "enrollment", "kafka_password": STRONG},
        {"oidc_issuer": "https://login", "oidc_jwks": "https://login/keys?p=policy"},
        {"oidc_issuer": "muster", "oidc_jwks": "/etc/muster/keys.json"},
        {"oidc_issuer": "http://login", "allow_plaintext": "true"},
    ],
)
def test_production_accepts_secure_settings(settings: dict[str, str]) -> None:
    Settings.model_validate({"environment": "production", **settings})


def test_the_sandbox_accepts_anything() -> None:
    Settings(environment="sandbox", postgres_api_dsn=SecretStr("postgresql://a:a@db/d"), kafka_bootstrap="kafka:9092")
