"""A newcomer's first command: the program's first year, and the proof that its books balance."""

from pathlib import Path

from muster_local.demo.proof import LINES
from tests.e2e.demonstration import marks, playing


def test_a_year_is_played_and_every_line_of_the_proof_is_green(
    tmp_path: Path, postgres: str, kafka_bootstrap: str
) -> None:
    with playing(tmp_path / "home", postgres, kafka_bootstrap) as demonstration:
        output, _ = demonstration.communicate()
    assert demonstration.returncode == 0, output
    assert marks(output) == ["✓"] * len(LINES), output
