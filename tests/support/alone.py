"""Lets a test that measures how long others wait run while no other worker runs a test."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the right to run a test, which others share unless it is `alone`; all workers name the same folder."""
    with (folder / "entrance").open("w") as entrance, (folder / "running").open("w") as running:
        fcntl.flock(entrance, fcntl.LOCK_EX)  # nobody passes one who waits to be alone
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(entrance, fcntl.LOCK_UN)
        yield
