"""`muster logs`: the output of the processes."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from muster_local.home import Home
from muster_operator.failures import BadInput, NotFound
from muster_operator.options import DEFAULT_HOME, HomeOption

_FOLLOW_SECONDS = 0.2


def logs(
    process: Annotated[
        str | None, typer.Argument(help="One process: postgres, kafka, mail, or a service. Default: all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print the logs of the processes."""
    folder = Home(home)
    files = [folder.log(process)] if process else sorted(folder.path.glob("logs/*.log"))
    known = sorted(file.stem for file in folder.path.glob("logs/*.log"))
    if process and known and process not in known:
        raise BadInput(f"PROCESS {process}: must be one of {', '.join(known)}")
    if missing := [file for file in files if not file.exists()]:
        raise NotFound(f"{missing[0]} does not exist")
    if not files:
        raise NotFound(f"there are no logs in {folder.path}")
    with contextlib.suppress(KeyboardInterrupt):
        for file, line in _lines(files, follow):
            typer.echo(line if process else f"{file.stem:<12} {line}")


def _lines(files: list[Path], follow: bool) -> Iterator[tuple[Path, str]]:
    """The files' lines, each with its file; with `follow`, then new lines forever."""
    with contextlib.ExitStack() as stack:
        opened = [(file, stack.enter_context(file.open(encoding="utf-8", errors="replace"))) for file in files]
        while True:
            for file, text in opened:
                for line in text:
                    yield file, line.rstrip("\n")
            if not follow:
                return
            time.sleep(_FOLLOW_SECONDS)
