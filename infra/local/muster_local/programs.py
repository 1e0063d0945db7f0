"""The stack's programs, each with its own command line and only its own secrets."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from muster_local.child import Program
from muster_local.home import ISSUER, Home, Installation
from muster_local.secured import secured
from muster_local.servers import external_kafka_settings
from muster_operator.databases.provisioning import Access

MAIL = "mail"


def migrations_of(service: str) -> Path:
    spec = find_spec(f"muster_{service}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "migrations"


def mail_sink(home: Home, installation: Installation) -> Program:
    port = installation.ports[MAIL]
    return Program(
        name=MAIL,
        command=[sys.executable, "-m", "muster_local.mail", str(port), str(home.mail)],
        address=f"127.0.0.1:{port}",
        environment=_bare_environment(),
    )


def service_program(
    service: str,
    home: Home,
    installation: Installation,
    access: Access,
    bootstrap: str,
    topic_prefix: str,
    role: str = "all",
    *,
    write_secrets: bool = False,
) -> Program:
    """One of the four services, by default in all its roles. It uses two database roles, but never the owner's.

    On a secured stack, `write_secrets` writes the files with its secrets, as each start does.
    """
    port = installation.ports[service]
    environment = {
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_INSTANCE": f"{service}-1",
        "MUSTER_POSTGRES_API_DSN": access.api_dsn,
        "MUSTER_POSTGRES_WORKER_DSN": access.worker_dsn,
        **external_kafka_settings(),
        "MUSTER_KAFKA_BOOTSTRAP": bootstrap,
        "MUSTER_TOPIC_PREFIX": topic_prefix,
        "MUSTER_HTTP_HOST": "127.0.0.1",
        "MUSTER_HTTP_PORT": str(port),
        # In a sandbox, one client plays a whole program, and a year takes a minute.
        "MUSTER_HTTP_TOKEN_RATE": "1000000",
        "MUSTER_HTTP_AGENCY_RATE": "1000000",
        "MUSTER_PERSONAL_READS_PER_MINUTE": "1000000",
        "MUSTER_OIDC_ISSUER": ISSUER,
        "MUSTER_OIDC_JWKS": str(home.jwks),
    }
    environment |= _own_settings(service, installation)
    if (doors := secured(home, installation)) is not None:
        environment = doors.settings_of(service, environment, write=write_secrets)
    return Program(
        name=service,
        command=[sys.executable, "-m", f"muster_{service}", "serve", "--role", role],
        address=f"http://127.0.0.1:{port}",
        environment=_bare_environment() | _tracing() | environment,
    )


def _own_settings(service: str, installation: Installation) -> dict[str, str]:
    """The settings that only this service receives."""
    if service == "entitlements":
        return {"MUSTER_SUBJECT_KEY": installation.subject_key}
    if service == "notify":
        return {
            "MUSTER_SECRET_KEY": installation.secret_key,
            "MUSTER_SMTP_HOST": "127.0.0.1",
            "MUSTER_SMTP_PORT": str(installation.ports[MAIL]),
            "MUSTER_SMTP_STARTTLS": "false",
            "MUSTER_WEBHOOK_ALLOW_PRIVATE": "true",
            # The demo's proof compares a whole year's deliveries with its events.
            "MUSTER_DELIVERY_RETENTION_DAYS": "400",
        }
    return {}


def _tracing() -> dict[str, str]:
    """OpenTelemetry's variables except the service name: each service sets its own."""
    return {name: os.environ[name] for name in os.environ if name.startswith("OTEL_") and name != "OTEL_SERVICE_NAME"}


def _bare_environment() -> dict[str, str]:
    """The variables that any program needs, without Muster's settings and secrets."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}
