"""Finds the processes of a stack's home."""

import os
from pathlib import Path

import psutil


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process with the home's path in its arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in each for each in told):
            found.append(process)
    return found
