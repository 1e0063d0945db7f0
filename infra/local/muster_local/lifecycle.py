"""`muster up` and `muster down`."""

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from muster_contracts import SERVICES
from muster_local.addresses import without_secrets
from muster_local.demo.cast import register
from muster_local.demo.program import ProgramClient
from muster_local.stack import Stack, StackFailed
from muster_operator.failures import BadInput
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption
from muster_operator.output import Answer, show, table
from muster_runtime.console import console
from muster_runtime.exit_statuses import FAILED

SecureOption = Annotated[
    bool | None,
    typer.Option(
        "--secure/--no-secure",
        help="Create the stack with or without TLS, passwords, ACLs, and an identity provider. You cannot change it "
        "later.",
        show_default=False,
    ),
]


def up(
    home: HomeOption = DEFAULT_HOME,
    port: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Set a port, such as billing=8003. Repeatable.")
    ] = None,
    maintenance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE", help="Run this service with its operator routes only, as after a restore. Repeatable."
        ),
    ] = None,
    secure: SecureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start Postgres, Kafka, the mail sink, and the four services, and leave them running."""
    if unknown := set(maintenance or ()) - set(SERVICES):
        raise BadInput(f"--maintenance {min(unknown)}: must be one of {', '.join(SERVICES)}")
    try:
        stack = asyncio.run(_start(home, _ports(port or []), maintenance or [], secure))
    except StackFailed as failure:
        # The message includes the last lines of the failed process.
        typer.echo(f"The stack did not start: {failure}", err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        console(stderr=True).print("Stopped; nothing is left running.")
        raise typer.Exit(130) from None
    show(_addresses(stack, home), as_json=as_json)


def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop everything. The data stays."""
    stack = Stack(home)
    with console(stderr=True).status("Stopping"):
        stopped = asyncio.run(stack.stop())
    typer.echo(f"Stopped the stack in {stack.home}." if stopped else f"Nothing was running in {stack.home}.")


async def _start(home: Path, ports: dict[str, int], maintained: list[str], secure: bool | None) -> Stack:
    progress = console(stderr=True)
    with progress.status("Starting") as spinner:

        def tell(step: str) -> None:
            progress.print(Text(step, style="dim"))
            spinner.update(step)

        stack = await Stack.start(home, progress=tell, detached=True, ports=ports, maintained=maintained, secure=secure)
        if "enrollment" not in maintained:
            await _import_register(stack, tell)
        return stack


async def _import_register(stack: Stack, tell: Callable[[str], None]) -> None:
    """Import the federal agencies, unless the register has some already, so that the first request finds agencies."""
    urls = {"enrollment": stack.service_url("enrollment")}
    async with ProgramClient(urls, stack.token("enrollment:operate", "enrollment:read")) as program:
        if not (await program.get("enrollment", "agencies", limit=1))["items"]:
            tell("Importing the register of agencies")
            await program.upload("enrollment", "register", register(), "text/tab-separated-values")


def _ports(given: list[str]) -> dict[str, int]:
    ports = {}
    for each in given:
        name, _, number = each.partition("=")
        if not (name and number.isdecimal() and 0 < int(number) < 65_536):
            raise BadInput(f"--port {each}: must be NAME=NUMBER with a number from 1 to 65535")
        if name not in (listeners := _listeners()):
            raise BadInput(f"--port {each}: the name must be one of {', '.join(listeners)}")
        ports[name] = int(number)
    return ports


def _listeners() -> list[str]:
    from muster_local.programs import MAIL  # these load the servers' clients, which `down` does not need
    from muster_local.servers import secured_listeners

    return [*secured_listeners(), MAIL, *SERVICES]


def _addresses(stack: Stack, home: Path) -> Answer:
    processes = {name: _public(process.address) for name, process in stack.state().processes.items()}
    shown = table(("process", "address"), [*processes.items(), ("e-mails", str(stack.mail_dir))])
    option = "" if home == DEFAULT_HOME else f" --home {shlex.quote(str(home))}"
    steps = table(
        ("try next", ""),
        [
            (f"muster agency list{option}", "the federal agencies"),
            (f"{processes['enrollment']}/docs", "every route of enrollment; each service has such a page"),
            (f"muster token --scope enrollment:read --agency '*'{option}", "a bearer token for it"),
            (f"ls {shlex.quote(str(stack.mail_dir))}", "the e-mails, one file each"),
            (f"muster down{option}", "stop it; the data stays"),
        ],
    )
    found = {"home": str(stack.home), "processes": processes, "mail": str(stack.mail_dir)}
    notes = [
        f"{process.name} runs in maintenance: it answers operator routes only"
        for process in stack.state().processes.values()
        if process.maintenance
    ]
    return Answer(found, Group(shown, *notes, "", steps))


def _public(address: str) -> str:
    return address if address.startswith("http") else without_secrets(address)
