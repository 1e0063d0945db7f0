"""What `muster demo` refuses before it starts anything, and what it leaves behind when it fails."""

import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from muster_local.demo import cli
from muster_local.stack import StackFailed
from muster_operator.cli import app


def test_a_home_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "installation.json").touch(mode=0o600)
    result = CliRunner().invoke(app, ["demo", f"--home={tmp_path}"])
    assert result.exit_code == 2
    assert "needs a new home" in result.output


def test_less_than_one_seat_for_each_agency_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--seats=43", f"--home={tmp_path}"])
    assert result.exit_code == 2
    assert "43 seats are too few for 44 agencies" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_failed_demo_leaves_its_logs_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_arguments: object, **_options: object) -> None:
        raise StackFailed("billing is not ready after 120 s: not listening")

    monkeypatch.setattr(cli, "_play", fails)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = CliRunner().invoke(app, ["demo"], env={"MUSTER_HOME": None})
    (home,) = tmp_path.iterdir()
    assert result.exit_code == 1
    assert result.stderr == f"muster: billing is not ready after 120 s: not listening; the logs are in {home}/logs\n"
