"""The demonstration as somebody starts it who types `muster demo`, on the tests' servers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SEATS = 500


@contextmanager
def playing(home: Path, postgres: str, kafka_bootstrap: str) -> Iterator["subprocess.Popen[str]"]:
    """The running demonstration; it is ended, and its stack with it, when the block is left early."""
    process = subprocess.Popen(
        [sys.executable, "-m", "muster_local.cli", "demo", f"--seats={SEATS}", f"--home={home}"],
        env={**os.environ, "MUSTER_POSTGRES_DSN": postgres, "MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def marks(output: str) -> list[str]:
    """The mark of each line of the proof."""
    rows = (line.split("│") for line in output.splitlines())
    return [cells[1].strip() for cells in rows if len(cells) > 3 and cells[1].strip()]
