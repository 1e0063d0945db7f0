"""The entry point of the image `muster/test-servers`: runs one real server as the container's only process.

    python -m muster_local.container postgres [--certificate FILE --key FILE --authority FILE]
    python -m muster_local.container kafka --advertised HOST[:PORT] [--node N --voter N@HOST:PORT …]

It listens on every address, keeps its data in /data, and shuts down cleanly on SIGTERM. Each option also has an
environment variable; `--help` names it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from muster_local.certificates import Certificate
from muster_local.kafka import Kafka
from muster_local.kafka_security import KafkaSecurity
from muster_local.postgres import Postgres, PostgresSecurity
from muster_runtime.exit_statuses import BAD_INPUT

EVERYWHERE = "0.0.0.0"  # noqa: S104 - it serves other containers
POSTGRES_PORT, KAFKA_PORT, CONTROLLER_PORT = 5432, 9092, 9093

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

DataOption = Annotated[Path, typer.Option(envvar="DATA", help="The data folder.")]


@app.command()
def postgres(
    data: DataOption = Path("/data"),
    password_file: Annotated[
        Path | None, typer.Option(envvar="POSTGRES_PASSWORD_FILE", help="The file with the superuser's password.")
    ] = None,
    password: Annotated[
        str, typer.Option(envvar="POSTGRES_PASSWORD", help="The superuser's password, if it is not in a file.")
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(envvar="TLS_CERTIFICATE", help="The server's certificate, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="TLS_KEY", help="The certificate's key, PEM.")] = None,
    authority: Annotated[Path | None, typer.Option(envvar="TLS_AUTHORITY", help="The CA to trust, PEM.")] = None,
    parameter: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="A setting. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Run Postgres: with a certificate, version 17 that accepts only TLS; without one, version 18 without TLS."""
    security = None
    if certificate or key or authority:
        if not (certificate and key and authority):
            raise _refusal("--certificate, --key and --authority: give all three, or none")
        security = PostgresSecurity(Certificate(certificate, key, both=certificate), authority)
    parameters = dict(each.partition("=")[::2] for each in parameter)
    # initdb needs an empty folder, which a volume's root may not be.
    server = Postgres(
        data / "postgres", POSTGRES_PORT, _secret("password", password, password_file), parameters, security, EVERYWHERE
    )
    server.prepare()
    _run_until_stopped(list(server.command()), signal.SIGINT)


@app.command()
def kafka(
    advertised: Annotated[
        str,
        typer.Option(envvar="KAFKA_ADVERTISED", metavar="HOST[:PORT]", help="The address for clients and other nodes."),
    ],
    port: Annotated[int, typer.Option(envvar="KAFKA_PORT", help="The port to listen on.")] = KAFKA_PORT,
    data: DataOption = Path("/data"),
    node: Annotated[int, typer.Option(envvar="KAFKA_NODE", help="This node's number.")] = 1,
    voter: Annotated[
        list[str],
        typer.Option(envvar="KAFKA_VOTERS", metavar="NODE@HOST:PORT", help="A controller of the cluster. Repeatable."),
    ] = [],  # noqa: B006
    cluster_id: Annotated[
        str, typer.Option(envvar="KAFKA_CLUSTER_ID", help="The cluster's ID, the same for all nodes.")
    ] = "",
    heap: Annotated[str, typer.Option(envvar="KAFKA_HEAP", help="Java's -Xmx.")] = "512m",
    keystore: Annotated[
        Path | None, typer.Option(envvar="TLS_KEYSTORE", help="Certificate and key, PEM; the subject is CN=broker.")
    ] = None,
    authority: Annotated[Path | None, typer.Option(envvar="TLS_AUTHORITY", help="The CA to trust, PEM.")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(envvar="KAFKA_ADMIN_PASSWORD_FILE", help="The file with the administrator's password."),
    ] = None,
    certificate_port: Annotated[
        int, typer.Option(envvar="KAFKA_CERTIFICATE_PORT", help="The port for brokers and clients with certificates.")
    ] = 9094,
) -> None:
    """Run a Kafka node as broker and controller. With a keystore, it requires TLS and authentication."""
    host, _, advertised_port = advertised.partition(":")
    quorum = {int(number): address for number, _, address in (each.partition("@") for each in voter)}
    if quorum and (node not in quorum or not cluster_id):
        raise _refusal("--voter: name every node, this one too, and give all the same --cluster-id")
    security = None
    if keystore or authority or password_file:
        if not (keystore and authority and password_file):
            raise _refusal("--keystore, --authority and --password-file: give all three, or none")
        security = KafkaSecurity(keystore, authority, _secret("password", "", password_file), certificate_port)
    broker = Kafka(
        data / "kafka",
        port,
        CONTROLLER_PORT,
        heap=heap,
        node=node,
        cluster_id=cluster_id,
        quorum=quorum,
        replicas=max(len(quorum), 1),
        host=EVERYWHERE,
        advertised_host=host,
        advertised_port=int(advertised_port) if advertised_port else None,
        security=security,
    )
    broker.prepare()
    command = list(broker.command())
    os.execv(command[0], command)  # noqa: S606 - Java handles the signals itself


def _secret(name: str, value: str, file: Path | None) -> str:
    if file is not None:
        value = file.read_text("utf-8").strip()
    if not value:
        raise _refusal(f"the {name} is missing: set --{name}-file")
    return value


def _run_until_stopped(command: list[str], stop_signal: signal.Signals) -> None:
    """Run a server; on SIGTERM, send it its own stop signal."""
    server = subprocess.Popen(command)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.send_signal(stop_signal)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sys.exit(server.wait())


def _refusal(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(BAD_INPUT)


if __name__ == "__main__":
    app()
