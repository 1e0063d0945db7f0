"""`muster databases`: creates the services' roles, databases, and schemas on a Postgres server."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer
from rich.markup import escape

from muster_contracts import SERVICES
from muster_operator.clients import client_of_postgres
from muster_operator.databases import provisioning
from muster_operator.databases.passwords import make_passwords, read_passwords
from muster_operator.databases.provisioning import address
from muster_operator.databases.reading import SERVICE, connected
from muster_operator.databases.steps import Step, Wanted
from muster_operator.failures import BadInput
from muster_operator.group import group
from muster_operator.options import ServicesOption
from muster_operator.output import Answer, table
from muster_operator.target import Target, on_target
from muster_runtime.secrets import FOLDER

app = group("Create the services' roles, databases, and schemas on a Postgres server.")

DEFAULT_FOLDER = Path("passwords")

PasswordsOption = Annotated[
    Path,
    typer.Option(
        "--passwords",
        metavar="DIR",
        envvar=FOLDER,
        help="A folder with a file for each role's password, such as billing_api.",
    ),
]
DatabaseOption = Annotated[
    str, typer.Option("--database", help="The services' database; {service} stands for the service's name.")
]

Done = Sequence[tuple[Wanted, Step]]


@app.command("plan")
@on_target(asks=False)
async def show_plan(
    target: Target,
    passwords: PasswordsOption = DEFAULT_FOLDER,
    database: DatabaseOption = "muster",
    services: ServicesOption = None,
) -> Answer:
    """Show the SQL that apply would execute, without passwords. The exit status is 1 if there is any.

    MUSTER_ADMIN_DSN must name a superuser, or a role with CREATEROLE and CREATEDB.
    """
    wanted = _wanted(database, services)
    done = await _steps(target, wanted, passwords, lambda new: dict.fromkeys(new, ""), provisioning.plan, nullcontext)
    return _answer(done, ok=not done)


@app.command("apply")
@on_target(asks=False)
async def apply_plan(
    target: Target,
    passwords: PasswordsOption = DEFAULT_FOLDER,
    database: DatabaseOption = "muster",
    services: ServicesOption = None,
) -> Answer:
    """Create what is missing: roles, databases, rights, and schemas.

    A new role gets the password in its file or, without a file, a new one, which the command writes there with mode
    0600. An existing role that cannot log in with the password in its file gets that password. The command is
    safe to repeat, even concurrently.
    """
    wanted = _wanted(database, services)
    done = await _steps(
        target, wanted, passwords, partial(make_passwords, passwords), provisioning.apply_locked, provisioning.locked
    )
    return _answer(done, ok=True)


async def _steps(
    target: Target,
    wanted: Sequence[Wanted],
    folder: Path,
    make: Callable[[Sequence[str]], Mapping[str, str]],
    take: Callable[[str, Wanted], Awaitable[Sequence[Step]]],
    locked: Callable[[str], AbstractAsyncContextManager[object]],
) -> Done:
    """The steps for each service. `make` creates the passwords of new roles. Raises BadInput."""
    dsn = target.require("admin_dsn").admin_dsn
    if SERVICE in dsn:
        raise BadInput(f"MUSTER_ADMIN_DSN: must name one database of the server, without {SERVICE}, for this command")
    done: list[tuple[Wanted, Step]] = []
    # The passwords are made under the lock, too: another apply may be creating the same roles.
    async with client_of_postgres(), locked(dsn):
        for each in wanted:
            known, new = await _passwords(dsn, each, folder)
            done += [(each, step) for step in await take(dsn, replace(each, passwords={**known, **make(new)}))]
    return done


def _wanted(database: str, services: Sequence[str] | None) -> list[Wanted]:
    return [Wanted(name, database.replace("{service}", name), {}) for name in services or SERVICES]


async def _passwords(admin_dsn: str, wanted: Wanted, folder: Path) -> tuple[dict[str, str], list[str]]:
    """The passwords in the folder that do not work yet, by role, and the roles that need a new password."""
    given = read_passwords(folder, wanted.roles)
    async with connected(admin_dsn) as connection:
        rows = await connection.fetch("select rolname from pg_roles where rolname = any($1)", wanted.roles)
    there = {row["rolname"] for row in rows}
    refused = {
        role: password
        for role, password in given.items()
        if role not in there or not await _logs_in(address(admin_dsn, wanted.database, role, password))
    }
    return refused, [role for role in wanted.roles if role not in there and role not in given]


async def _logs_in(dsn: str) -> bool:
    """Whether the role's password is right. It is even if the role then lacks another right."""
    try:
        async with connected(dsn):
            return True
    except asyncpg.InsufficientPrivilegeError:
        return True
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError):
        return False


def _answer(done: Done, *, ok: bool) -> Answer:
    steps = [{"service": wanted.service, "database": wanted.database, "sql": step.shown} for wanted, step in done]
    if not steps:
        return Answer({"steps": []}, "All roles, databases, and schemas exist.")
    return Answer({"steps": steps}, table(("service", "SQL"), [_row(*each) for each in done]), ok=ok)


def _row(wanted: Wanted, step: Step) -> tuple[Any, ...]:
    where = f"-- in {wanted.database}\n" if step.inside else ""
    return wanted.service, escape(f"{where}{step.shown};")
