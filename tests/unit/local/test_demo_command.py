"""What `muster demo` refuses before it starts anything."""

from pathlib import Path

from typer.testing import CliRunner

from muster_operator.cli import app


def test_a_home_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "installation.json").touch(mode=0o600)
    result = CliRunner().invoke(app, ["demo", f"--home={tmp_path}"])
    assert result.exit_code == 2
    assert "needs a new home" in result.output


def test_less_than_a_seat_for_each_agency(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--seats=43", f"--home={tmp_path}"])
    assert result.exit_code == 2
    assert "43 seats are too few for 44 agencies" in result.output
    assert list(tmp_path.iterdir()) == []
