"""The console for human-readable output."""

import sys

from rich.console import Console

# Wide enough for any row, so that piped output is never wrapped.
_PIPED_COLUMNS = 10_000


def console(*, stderr: bool = False) -> Console:
    """The console for human-readable output: as wide as the terminal, or unwrapped if there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPED_COLUMNS, highlight=False)
