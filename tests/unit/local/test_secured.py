"""A secured stack's secrets, which somebody may rotate while it runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster_contracts import SERVICES
from muster_local.home import PROVIDER, Home, State
from muster_local.programs import MAIL, service_program
from muster_local.servers import secured_listeners
from muster_local.stack import Stack
from muster_operator.databases.provisioning import access_to, password_of

ADMIN_DSN = "postgresql://postgres:secret@127.0.0.1:1/muster"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The home of a secured stack that has started."""
    umask = os.umask(0o077)  # as the supervisor's
    home = Home(tmp_path / "home").make()
    with home.held():
        home.write_state(State(supervisor=home.supervisor() or 0, admin_dsn=ADMIN_DSN, bootstrap="127.0.0.1:1"))
        start(home)
        yield home
    os.umask(umask)


def start(home: Home) -> None:
    """Write the secrets of billing, as the supervisor does."""
    installation = home.installation([*secured_listeners(), PROVIDER, MAIL, *SERVICES], {}, secure=True)
    access = access_to(ADMIN_DSN, "muster", "billing", password_of(ADMIN_DSN))
    service_program("billing", home, installation, access, "127.0.0.1:1", "", write_secrets=True)


def test_a_command_uses_a_rotated_secret_and_does_not_restore_it(home: Home) -> None:
    folder = home.path / "secrets" / "billing"
    original = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
    rotated = {name: f"{name} rotated" for name in original}
    assert "MUSTER_KAFKA_PASSWORD" in original
    for name, secret in rotated.items():
        (folder / name).write_text(secret, "utf-8")
    settings = Stack(home.path).settings_of("billing")
    assert settings["MUSTER_SECRETS_DIR"] == str(folder)
    assert not original.keys() & settings.keys()
    assert {file.name: file.read_text("utf-8") for file in folder.iterdir()} == rotated
    start(home)
    assert {file.name: file.read_text("utf-8") for file in folder.iterdir()} == original
