"""Groups of commands: the root, which imports a command only when it is invoked, and its subgroups."""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from muster_operator.catalog import Catalog, Command, installed
from muster_operator.failures import CommandFailed
from muster_runtime.exit_statuses import BAD_INPUT
from muster_runtime.plain_rules import plain_rule


def group(help: str, *, runs_alone: bool = False) -> typer.Typer:
    """A group of commands within `muster`. Unless it `runs_alone`, it shows its help if no command is given."""
    return typer.Typer(
        cls=Group, no_args_is_help=not runs_alone, add_completion=False, rich_markup_mode=None, help=help
    )


class Group(TyperGroup):
    """A group whose help shows the first sentence of each command's help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without arguments, print the help."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, without shortening their summaries."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        _write("Commands", [(name, summary_of(command)) for name, command in commands if command], formatter)


class Root(Group):
    """The commands of every installed package."""

    @cached_property
    def catalogs(self) -> tuple[Catalog, ...]:
        """The catalogs of the installed packages."""
        return tuple(installed())

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names, in the catalogs' order."""
        return [command.name for command in self._known()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; None if there is none with that name."""
        if cmd_name not in self.commands:
            known = next((command for command in self._known() if command.name == cmd_name), None)
            if known is None:
                return None
            self.commands[cmd_name] = _load(known)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each catalog, without importing a command."""
        for catalog in self.catalogs:
            _write(catalog.title, [(command.name, command.summary) for command in catalog.commands], formatter)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command. A failure prints one line to stderr and sets the exit status."""
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except CommandFailed as failed:
            _complain(str(failed), failed.exit_code)
        except typer.TyperException as error:
            _complain(_in_plain_words(error), error.exit_code)
        except UnicodeEncodeError as error:  # such as bytes that are not UTF-8; the text may also be a secret
            given = any(error.object in each for each in (sys.argv[1:] if args is None else args))
            what = ascii(error.object) if given else "an argument or a setting"
            _complain(f"{what} must be text in {error.encoding.upper()}", BAD_INPUT)
        sys.exit(status if isinstance(status, int) else 0)

    def _known(self) -> Iterator[Command]:
        for catalog in self.catalogs:
            yield from catalog.commands


def summary_of(command: Any) -> str:
    """The first sentence of a command's help."""
    first, _, rest = " ".join((command.help or "").partition("\n\n")[0].split()).partition(". ")
    return f"{first}." if rest else first


def _load(command: Command) -> Any:
    loaded = resolve_name(command.target)
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(command.name)(loaded)
        loaded = app
    return get_command(loaded)


def _write(title: str, rows: list[tuple[str, str]], formatter: Any) -> None:
    with formatter.section(title):
        formatter.write_dl(rows)


def _in_plain_words(error: typer.TyperException) -> str:
    """What is wrong with an argument or an option, without pydantic's wording, and naming each file once."""
    # Imported late: only a rejected value needs it.
    from pydantic import ValidationError

    message = re.sub(r"^Invalid value for '(\S+)': (?:Value error, )?(?:file (?='))?", r"\1: ", error.format_message())
    if isinstance(error.__cause__, ValidationError):
        fault = error.__cause__.errors(include_url=False)[0]
        if fault["type"] != "value_error":
            return f"{message.partition(':')[0]} {fault['input']}: {plain_rule(fault)}"
    return re.sub(r"('.*?') is not one of (.*?)\.?$", r"\1 must be one of \2", message)


def _complain(message: str, status: int) -> NoReturn:
    typer.echo(f"muster: {' '.join(message.split())}", err=True)
    sys.exit(status)
