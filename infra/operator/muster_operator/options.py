"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path(".muster")
HOME_VARIABLE = "MUSTER_HOME"

HomeOption = Annotated[
    Path, typer.Option("--home", envvar=HOME_VARIABLE, help="The stack's folder, with its data, secrets, and logs.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar="MUSTER_TOKEN",
        help="A bearer token. Default: the client's own, the stack's, or muster login's.",
    ),
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only this service. Default: all four.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
