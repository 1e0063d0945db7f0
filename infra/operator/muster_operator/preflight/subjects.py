"""The services to check, each with the settings and secrets that it will run with."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from muster_operator.failures import BadInput
from muster_operator.preflight.findings import Check, Finding
from muster_operator.target import Target
from muster_runtime.secrets import FOLDER, PREFIX, SecretUnusable, explain
from muster_runtime.settings import Settings

# The environment variables of each service, by its name, in JSON. The services' settings may differ.
SETTINGS = f"{PREFIX}PREFLIGHT_SETTINGS"

_SETTINGS = TypeAdapter(dict[str, dict[str, str]])


@dataclass(frozen=True)
class Subject:
    """A service and its settings: its own class if its package is installed, otherwise only the common ones."""

    service: str
    settings: Settings


def environment_of(target: Target, service: str) -> Mapping[str, str]:
    """The environment that a service will run in: the one in MUSTER_PREFLIGHT_SETTINGS, this process's, or a stack's.

    Its secrets are in MUSTER_SECRETS_DIR, or in the subfolder named after the service, if there is one. Other files in
    that folder, such as a client certificate, are found the same way. Raises BadInput.
    """
    environment = {**_common(service), **(target.settings_of(service) if target.settings_of else {})}
    folder = environment.get(FOLDER)
    if not folder or not (own := Path(folder, service)).is_dir():
        return environment
    for name, value in environment.items():
        if value.startswith(f"{folder}/"):
            environment[name] = str(own / value.removeprefix(f"{folder}/"))
    return environment | {FOLDER: str(own)}


def _common(service: str) -> dict[str, str]:
    """This environment, with a service's settings in MUSTER_PREFLIGHT_SETTINGS, if any, in place of its settings."""
    try:
        settings = _SETTINGS.validate_json(os.environ.get(SETTINGS, "{}"))
    except ValidationError:  # its message quotes the value
        raise BadInput(
            f'{SETTINGS} must be JSON, such as {{"billing": {{"MUSTER_KAFKA_USERNAME": "billing"}}}}'
        ) from None
    if service not in settings:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | settings[service]


def read_subject(service: str, environment: Mapping[str, str]) -> tuple[Subject | None, Finding]:
    """The service with its settings, or None if they are invalid, and the finding about them."""
    check = Check(service, "settings")
    try:
        with _environment(environment):
            settings = _settings(service)
    except (SecretUnusable, ValidationError) as error:
        return None, check.failed(explain(error), "set it as the service's README says, or replace the secret")
    subject = Subject(service, settings)
    if settings.environment == "production" and settings.allow_plaintext:
        remedy = "set it only where the network itself encrypts"
        return subject, check.warning("MUSTER_ALLOW_PLAINTEXT allows connections without TLS", remedy)
    return subject, check.ok(f"complete for {'a sandbox' if settings.environment == 'sandbox' else 'production'}")


def _settings(service: str) -> Settings:
    """A service's settings. This command does not depend on the services; its image includes them all."""
    package = f"muster_{service}"
    if find_spec(package) is None:
        return Settings()
    settings: Settings = import_module(f"{package}.bootstrap").build().settings
    return settings


@contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Replace this process's environment while settings are read."""
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
