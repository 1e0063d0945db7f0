"""Options of the commands that manage access to Kafka."""

from pathlib import Path
from typing import Annotated

import typer

AclsOption = Annotated[bool, typer.Option("--acls", help="Include Kafka's access control lists (ACLs).")]
PrincipalOption = Annotated[
    str,
    typer.Option(
        "--principal",
        envvar="MUSTER_KAFKA_PRINCIPAL",
        help="The Kafka principal of a service or subscriber: {name} stands for its name.",
    ),
]
SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Include the sandbox clock's topic, which production does not have. A running stack implies it.",
    ),
]
SubscribersOption = Annotated[
    Path | None,
    typer.Option("--subscribers", help="The subscribers' file. Without it, only the services' ACLs are compared."),
]
