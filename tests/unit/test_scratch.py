"""The folders of the tests' servers: none outlives a killed run for long."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.scratch import make_scratch

_MAKE = "from tests.support.scratch import make_scratch; print(make_scratch('muster-scratch-'))"


def test_what_a_killed_run_left_in_memory_goes_and_what_another_run_uses_stays() -> None:
    made = subprocess.run([sys.executable, "-c", _MAKE], capture_output=True, check=True, text=True)
    left = Path(made.stdout.strip())
    used = make_scratch("muster-scratch-")
    try:
        shutil.rmtree(make_scratch("muster-scratch-"))

        assert used.is_dir()
        assert not left.exists() or not left.is_relative_to("/dev/shm")
    finally:
        shutil.rmtree(used)
        shutil.rmtree(left, ignore_errors=True)
