"""`muster drill`: runs the harmless fault tests against the Postgres and Kafka that the environment names.

The tests are in the repository, not in the installed package, so the command needs a clone.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from muster_local import kafka, postgres
from muster_local.addresses import without_secrets
from muster_local.child import dies_with_parent
from muster_local.servers import KAFKA_BOOTSTRAP, POSTGRES_DSN, external_kafka, external_postgres
from muster_operator.failures import BadInput, Unreachable
from muster_operator.output import table
from muster_runtime.console import console
from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.secrets import SecretUnusable, explain

_REPOSITORY = Path(__file__).parents[3]
_FAULTS = _REPOSITORY / "tests" / "faults"


def drill(
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME", help="Only faults whose name contains this, such as 01.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Repeat an earlier run's random choices; a failed fault shows its seed."),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the faults without running them.")] = False,
) -> None:
    """Run Muster's fault tests against your own Postgres and Kafka, without harming them.

    MUSTER_POSTGRES_DSN (a superuser's) and MUSTER_KAFKA_BOOTSTRAP name the servers. A test kills, stops, or misleads
    only what it created itself, and removes it afterward. The exit status is 1 unless every test passes.
    """
    if not _FAULTS.is_dir():
        raise BadInput(f"{_FAULTS} does not exist: run .venv/bin/muster from a clone of the repository")
    if listing:
        typer.echo("\n".join(_names(only)))
        return
    dsn, bootstrap = _servers()
    asyncio.run(_reach(dsn))
    typer.echo(
        f"Running {len(_names(only))} faults against Postgres at {without_secrets(dsn)} and Kafka at {bootstrap}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        findings = Path(scratch) / "findings.jsonl"
        status = _try(only, seed, findings)
        if findings.exists():
            console().print(_table(findings))
    if status:
        raise typer.Exit(1)


def _servers() -> tuple[str, str]:
    dsn, bootstrap = external_postgres(), external_kafka()
    if dsn is None or bootstrap is None:
        missing = [name for name, value in ((POSTGRES_DSN, dsn), (KAFKA_BOOTSTRAP, bootstrap)) if value is None]
        raise BadInput(f"set {' and '.join(missing)}: the faults run against those servers")
    return dsn, bootstrap


async def _reach(dsn: str) -> None:
    try:
        answers = await postgres.answers(dsn)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate of Postgres is not accepted: {error.verify_message}") from None
    if not answers:
        raise Unreachable(f"Postgres at {without_secrets(dsn)} does not answer, or rejects the login of {POSTGRES_DSN}")
    try:
        connection = KafkaConnection(KafkaSettings())
    except (SecretUnusable, ValidationError) as error:
        raise BadInput(explain(error)) from None
    if not await kafka.answers(connection):
        raise Unreachable(f"Kafka at {connection.bootstrap} does not answer, or refuses the credentials")


def _names(only: str | None) -> list[str]:
    """The fault tests, each as the sentence that it proves. Raises BadInput if none matches."""
    done = subprocess.run(
        [*_pytest(only), "--collect-only", "--quiet"], cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True, check=False
    )
    tests = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    if not tests:
        raise BadInput(f"--only {only}: no fault has that name; see --list")
    return sorted(_sentence(test) for test in tests)


def _try(only: str | None, seed: int | None, findings: Path) -> int:
    """Run the tests, which write their measurements to `findings`.

    They handle Ctrl-C themselves in order to clean up.
    """
    told = {"FAULT_FINDINGS": str(findings)} | ({} if seed is None else {"FAULT_SEED": str(seed)})
    child = subprocess.Popen(
        [*_pytest(only), "--drill", "--verbose", "--no-header"],
        cwd=_REPOSITORY,
        env=os.environ | told,
        preexec_fn=dies_with_parent(signal.SIGINT),
    )
    while True:
        with suppress(KeyboardInterrupt):
            return child.wait()


def _pytest(only: str | None) -> list[str]:
    selected = [] if only is None else ["-k", only]
    return [sys.executable, "-m", "pytest", str(_FAULTS), "-m", "drill", *selected]


def _table(findings: Path) -> Table:
    measured = [json.loads(line) for line in findings.read_text("utf-8").splitlines()]
    rows = [
        (_sentence(finding["test"]), str(finding["recovery_seconds"]), escape(finding["seen"]))
        for finding in sorted(measured, key=lambda finding: str(finding["test"]))
    ]
    return table(("fault", "recovery, s", "observed"), rows)


def _sentence(test: str) -> str:
    """A test's name as a sentence; the name of a parameter continues it."""
    words = test.removeprefix("test_").replace("_", " ").replace("[", " ").removesuffix("]")
    return words.replace("agencys", "agency's").replace("sigterm", "SIGTERM")
