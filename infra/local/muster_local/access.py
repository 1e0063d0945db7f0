"""`muster token` and `muster address`: what a client of the stack needs. Each prints one bare value, for scripts."""

from typing import Annotated

import typer

from muster_contracts import is_agency_id
from muster_local.scopes import SCOPES
from muster_local.stack import Stack
from muster_operator.failures import BadInput, NotFound
from muster_operator.options import DEFAULT_HOME, HomeOption
from muster_runtime.identifiers import EVERY_AGENCY


def token(
    scope: Annotated[list[str], typer.Option(help="A scope, such as billing:read. Repeatable.")],
    agency: Annotated[
        list[str],
        typer.Option(help="An agency that the token acts for, or '*' for all, as a program officer. Repeatable."),
    ],
    subject: Annotated[str, typer.Option(help="The actor that the audit trail records.")] = "operator",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print a bearer token from the sandbox's issuer, valid for one day."""
    if unknown := sorted(set(scope) - set(SCOPES)):
        raise BadInput(f"--scope {unknown[0]}: must be one of {', '.join(SCOPES)}")
    if agency != [EVERY_AGENCY] and (wrong := [each for each in agency if not is_agency_id(each)]):
        raise BadInput(f"--agency {wrong[0]}: must be an agency's ID, such as NASA, or '*' alone for all agencies")
    stack = Stack(home)
    if not stack.exists():
        raise NotFound(f"there is no stack in {stack.home}; make one with: muster up --home {home}")
    typer.echo(stack.token(*scope, agency=agency if len(agency) > 1 else agency[0], subject=subject))


def address(
    process: Annotated[
        str, typer.Argument(help="postgres (as superuser, with its password), kafka, mail, or a service.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print the address of a process."""
    stack = Stack.required(home)
    known = {name: each.address for name, each in stack.state().processes.items()}
    known |= {"postgres": stack.admin_dsn, "kafka": stack.bootstrap}
    if process not in known:
        raise BadInput(f"PROCESS {process}: must be one of {', '.join(known)}")
    typer.echo(known[process])
