"""`muster drill` says what it needs; a fault that would break a server is refused on somebody else's server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from muster_local import drill
from muster_operator.cli import app

ROOT = Path(__file__).parents[3]
POSTGRES, KAFKA = "MUSTER_POSTGRES_DSN", "MUSTER_KAFKA_BOOTSTRAP"

# Nothing answers there.
NOWHERE = {POSTGRES: "postgresql://admin:secret@127.0.0.1:1/postgres", KAFKA: "127.0.0.1:1"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["drill", *arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("missing", [[POSTGRES], [KAFKA], [POSTGRES, KAFKA]])
def test_missing_servers_are_named(missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, "" if name in missing else value)
    result = run()
    assert result.exit_code == 2
    assert f"set {' and '.join(missing)}:" in result.output


def test_servers_that_do_not_answer_are_named_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    result = run()
    assert result.exit_code == 5
    assert "Postgres at 127.0.0.1:1 does not answer" in result.output
    assert "secret" not in result.output


def test_the_list_names_harmless_faults_and_nothing_else() -> None:
    listed = run("--list").output.splitlines()
    assert "01 a relay killed between acknowledgment and delete causes no second effect" in listed
    assert "the comparison finds the difference without deduplication" in listed
    assert [line for line in listed if "_" in line or "[" in line] == []
    assert [line for line in listed if line[:2] in ("06", "07", "08", "09", "11", "25")] == []


def test_a_name_that_no_fault_has_is_refused() -> None:
    result = run("--list", "--only", "nothing_of_the_kind")
    assert result.exit_code == 2
    assert "no fault has that name" in result.output


def test_without_a_clone_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "_FAULTS", tmp_path / "faults")
    result = run("--list")
    assert result.exit_code == 2
    assert "run .venv/bin/muster from a clone" in result.output


def test_a_fault_that_breaks_servers_is_refused_on_a_borrowed_one() -> None:
    """The full-disk faults need no other fixture before this check, so not even a connection is opened."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/faults", "--drill", "-k", "test_25"],
        cwd=ROOT,
        env=os.environ | NOWHERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.count("\na drill breaks no server") == 2, done.stdout
    assert "2 errors" in done.stdout
