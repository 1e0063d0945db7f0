"""Homes of stacks, and servers of a stack's own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN
from tests.integration.local.homes import processes_of


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no servers."""
    monkeypatch.delenv(POSTGRES_DSN, raising=False)
    monkeypatch.delenv(KAFKA_BOOTSTRAP, raising=False)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of the test's own; whatever still runs there at its end is stopped, and fails the test.

    It is not below pytest's folder, which pytest closes to other system users, such as that of Postgres.
    """
    path = Path(tempfile.mkdtemp(prefix="muster-home-"))
    yield path
    left = processes_of(path)
    for process in left:
        process.kill()
    shutil.rmtree(path)
    assert not left
