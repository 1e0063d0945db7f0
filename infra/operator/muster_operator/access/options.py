"""Options of the commands that are about who may do what on Kafka."""

from pathlib import Path
from typing import Annotated

import typer

AclsOption = Annotated[bool, typer.Option("--acls", help="Also the access control lists (ACLs) of Kafka.")]
PrincipalOption = Annotated[
    str,
    typer.Option(
        "--principal",
        envvar="MUSTER_KAFKA_PRINCIPAL",
        help="How Kafka names the principal of a service or subscriber: {name} stands for its name.",
    ),
]
SandboxOption = Annotated[
    bool, typer.Option("--sandbox", help="Include the topic of the sandbox's clock, which production does not have.")
]
SubscribersOption = Annotated[
    Path | None,
    typer.Option("--subscribers", help="The subscribers' file. Without it, only the services' ACLs are compared."),
]
