"""Where a command prints for people."""

import sys

from rich.console import Console

# Wide enough for any row: what a program reads is never wrapped.
_PIPED_COLUMNS = 10_000


def console(*, stderr: bool = False) -> Console:
    """The console for people: as wide as the terminal or, elsewhere, as the text."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPED_COLUMNS, highlight=False)
