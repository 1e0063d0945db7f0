"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

from muster_operator.failures import BadInput

DEFAULT_HOME = Path(".muster")
HOME_VARIABLE = "MUSTER_HOME"

HomeOption = Annotated[
    Path, typer.Option("--home", envvar=HOME_VARIABLE, help="The stack's folder, with its data, secrets, and logs.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar="MUSTER_TOKEN",
        help="A bearer token. Default: one for the client's credentials, the stack's, or that of muster login.",
    ),
]


def a_service(parameter: typer.CallbackParam, service: str | None) -> str | None:
    """A service's name, or None. Raises BadInput."""
    # Imported late: the contracts are slow to load.
    from muster_contracts import SERVICES

    if service is not None and service not in SERVICES:
        raise BadInput(f"{parameter.opts[0]} {service}: must be one of {', '.join(SERVICES)}")
    return service


def some_services(parameter: typer.CallbackParam, services: list[str] | None) -> list[str] | None:
    """Services' names, or None. Raises BadInput."""
    for service in services or ():
        a_service(parameter, service)
    return services


ServiceOption = Annotated[
    str | None, typer.Option("--service", callback=a_service, help="Only this service. Default: all four.")
]
ServicesOption = Annotated[
    list[str] | None,
    typer.Option("--service", callback=some_services, help="Only this service; repeatable. Default: all four."),
]
# How a service's refusal names the option to go below the use, and how a command names it.
STATED_BELOW_USE = ("allow_below_use must be true", "pass --allow-below-use")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
