"""`muster rebuild`: runs a service's own command that rebuilds one of its projections."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from muster_operator.failures import BadInput, CommandFailed
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption
from muster_operator.target import Target
from muster_runtime.exit_statuses import FAILED


def rebuild(
    projection: Annotated[str, typer.Argument(help="The projection to rebuild, such as notify.directory.")],
    swap: Annotated[bool, typer.Option("--swap", help="Replace the live projection.")] = False,
    reason: Annotated[
        str,
        typer.Option("--reason", help="The reason for --swap, of at least three characters; the audit trail keeps it."),
    ] = "",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Rebuild a projection from the topics and compare it with the live one; --swap replaces the live one.

    The service does the work, as its workers' database role. The exit status is 1 if they differ, unless every
    difference was swapped.
    """
    service, name = _parse(projection)
    if swap and not reason:
        raise BadInput("--swap needs a --reason")
    if find_spec(f"muster_{service}") is None:
        raise BadInput(
            f"muster-{service} is not installed here: run python -m muster_{service} rebuild {name} where it is"
        )
    options = [*(["--swap", f"--reason={reason}"] if swap else []), *(["--json"] if as_json else [])]
    done = subprocess.run(
        [sys.executable, "-m", f"muster_{service}", "rebuild", *options, "--", name],
        env=_environment(home, service),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.stderr:
        failed = "muster: " if done.returncode > FAILED else ""  # the prefix of this package's error messages
        typer.echo(f"{failed}{done.stderr}", err=True, nl=False)
    if done.returncode < 0:
        raise CommandFailed(f"the service's command was killed by {signal.Signals(-done.returncode).name}")
    raise typer.Exit(done.returncode)


def _parse(projection: str) -> tuple[str, str]:
    """The service, and the projection's name within it. Raises BadInput."""
    # Imported late: the contracts are slow to load.
    from muster_contracts import SERVICES

    service, _, name = projection.partition(".")
    if service not in SERVICES or not name:
        raise BadInput(f"{projection!r}: must be a service and its projection, such as 'notify.directory'")
    return service, name


def _environment(home: Path, service: str) -> dict[str, str]:
    """The service's settings: from the stack, or from this environment. Raises BadInput."""
    target = Target.find(home)
    if target.settings_of is None:
        for variable in ("MUSTER_POSTGRES_WORKER_DSN", "MUSTER_KAFKA_BOOTSTRAP"):
            if not os.environ.get(variable):
                raise target.lacking(variable)
        return dict(os.environ)
    # Keep the variables that describe the terminal.
    terminal = {name: os.environ[name] for name in ("TERM", "COLUMNS", "NO_COLOR") if name in os.environ}
    return {**terminal, **target.settings_of(service)}
