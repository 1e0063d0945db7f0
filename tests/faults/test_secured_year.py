"""The program's first year on a secured stack: security changes nothing in the books."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster_local.demo.proof import LINES
from tests.e2e.demonstration import SEATS, marks


@pytest.fixture
def home() -> Iterator[Path]:
    """Not in pytest's folder, which is shut to Postgres' user whenever another run begins."""
    path = Path(tempfile.mkdtemp(prefix="muster-home-"))
    yield path
    shutil.rmtree(path)


def test_the_demonstration_is_proved_on_a_secured_stack(home: Path) -> None:
    command = [sys.executable, "-m", "muster_operator", "demo", "--secure", f"--seats={SEATS}", f"--home={home}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    done = subprocess.run(command, env=own, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert marks(done.stdout) == ["✓"] * len(LINES), done.stdout
