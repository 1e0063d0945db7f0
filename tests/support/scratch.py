"""Folders for the data of the tests' servers."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

# Linux's file system in memory. On a disk, the thousands of files of each test's database cost a tenth of a run's CPU.
_MEMORY = Path("/dev/shm")

# What the servers of a whole run store, several times over; a container's default of 64 MiB is too small.
_NEEDED_BYTES = 4 * 1024**3


def make_scratch(prefix: str) -> Path:
    """Create a folder, in memory if there is enough; its name is the prefix and this process's ID.

    What killed runs left in memory is removed first.
    """
    for left in _MEMORY.glob(f"{prefix}*-*"):
        if not psutil.pid_exists(int(left.name.removeprefix(prefix).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    room = min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available) if _MEMORY.is_dir() else 0
    in_memory = room >= _NEEDED_BYTES
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=_MEMORY if in_memory else None))
